package mysql

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"

	"github.com/headwaterdb/headwater/capture"
)

// A charset is a character set of the server: how the bytes of a string are text. MySQL
// has mappings of its own, such as latin1, which is cp1252 with the gaps filled. What it
// has no character for, and would print as a question mark, is no text, except where
// golang.org/x/text knows one.
// https://dev.mysql.com/doc/refman/8.4/en/charset-charsets.html
type charset struct {
	name string
	// most is how many bytes a character has at most.
	most   int
	decode func(out, p []byte) ([]byte, bool) // appends p in UTF-8; nil if p is UTF-8
	// ascii says that bytes below 0x80 are ASCII wherever a character begins.
	ascii bool
	// grows is how many bytes of UTF-8 one byte becomes at most.
	grows int
}

// text returns p in UTF-8. That is p itself where nothing changes, else memory of b, or
// of its own if b is nil. It reports false if p is no text of the character set.
func (cs *charset) text(b *capture.Batch, p []byte) ([]byte, bool) {
	if cs.decode == nil {
		return p, utf8.Valid(p)
	}
	if cs.ascii && isASCII(p) {
		return p, true
	}
	var out []byte
	if b != nil {
		out = b.Alloc(cs.grows * len(p))
	}
	return cs.decode(out[:0], p)
}

func isASCII(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&0x8080808080808080 != 0 {
			return false
		}
		p = p[8:]
	}
	for _, c := range p {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

var (
	binaryCharset = &charset{name: "binary", most: 1}
	utf8mb4       = &charset{name: "utf8mb4", most: 4}
)

// charsets are all that MySQL and MariaDB have, by name.
var charsets = make(map[string]*charset)

func init() {
	add := func(cs *charset) { charsets[cs.name] = cs }
	add(binaryCharset)
	add(utf8mb4)
	add(&charset{name: "utf8mb3", most: 3})
	charsets["utf8"] = charsets["utf8mb3"]
	add(&charset{name: "utf16", most: 4, grows: 2, decode: func(out, p []byte) ([]byte, bool) { return decodeUTF16(out, p, binary.BigEndian, true) }})
	add(&charset{name: "utf16le", most: 4, grows: 2, decode: func(out, p []byte) ([]byte, bool) { return decodeUTF16(out, p, binary.LittleEndian, true) }})
	add(&charset{name: "ucs2", most: 2, grows: 2, decode: func(out, p []byte) ([]byte, bool) { return decodeUTF16(out, p, binary.BigEndian, false) }})
	add(&charset{name: "utf32", most: 4, grows: 1, decode: decodeUTF32})
	for name, table := range singleBytes {
		add(singleByte(name, table))
	}
	for _, m := range multiBytes {
		m.table = sync.OnceValue(m.makeTable)
		add(&charset{name: m.name, most: m.most, ascii: true, grows: 3, decode: m.decode})
	}
}

// charsetNamed returns the character set with a name, nil if there is none.
func charsetNamed(name string) *charset { return charsets[strings.ToLower(name)] }

// charsetOf returns the character set of a collation, nil if it is unknown.
func charsetOf(collation int) *charset {
	// MariaDB's collations of UCA 14 have the character set in their number, and those
	// that do not pad lie 1024 above those that do.
	switch {
	case collation >= 2048:
		if i := (collation - 2048) >> 8; i < len(uca14) {
			return charsets[uca14[i]]
		}
		return nil
	case collation >= 1024:
		collation -= 1024
	}
	return collations()[collation]
}

var uca14 = [...]string{"utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32"}

// decodeUTF16 reads UTF-16 or, without surrogates, UCS-2.
func decodeUTF16(out, p []byte, order binary.ByteOrder, surrogates bool) ([]byte, bool) {
	if len(p)%2 != 0 {
		return nil, false
	}
	for len(p) > 0 {
		r := rune(order.Uint16(p))
		p = p[2:]
		if r >= 0xd800 && r < 0xe000 {
			if !surrogates || r >= 0xdc00 || len(p) < 2 {
				return nil, false
			}
			low := rune(order.Uint16(p))
			if low < 0xdc00 || low >= 0xe000 {
				return nil, false
			}
			r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
			p = p[2:]
		}
		out = utf8.AppendRune(out, r)
	}
	return out, true
}

func decodeUTF32(out, p []byte) ([]byte, bool) {
	if len(p)%4 != 0 {
		return nil, false
	}
	for ; len(p) > 0; p = p[4:] {
		u := binary.BigEndian.Uint32(p)
		if u > utf8.MaxRune || !utf8.ValidRune(rune(u)) {
			return nil, false
		}
		out = utf8.AppendRune(out, rune(u))
	}
	return out, true
}

// singleByte makes a character set from the characters of the bytes from 0x80 on.
func singleByte(name, high string) *charset {
	var table [256]rune
	for i := range 128 {
		table[i] = rune(i)
	}
	if name == "swe7" { // 7 bits, with letters in the place of some signs
		for i, r := range swe7 {
			if r != ' ' {
				table[0x40+i] = r
			}
		}
	}
	i := 128
	for _, r := range high {
		table[i] = r
		i++
	}
	for ; i < 256; i++ {
		table[i] = utf8.RuneError
	}
	return &charset{name: name, most: 1, ascii: name != "swe7", grows: 3, decode: func(out, p []byte) ([]byte, bool) {
		for _, c := range p {
			r := table[c]
			if r == utf8.RuneError {
				return nil, false
			}
			out = utf8.AppendRune(out, r)
		}
		return out, true
	}}
}

// swe7 is what 0x40 to 0x7f stand for, with a blank where that is ASCII.
var swe7 = []rune("É                          ÄÖÅÜ é                          äöåü\uFFFD")

// singleBytes are the characters of the bytes 0x80 to 0xff, U+FFFD where there is none.
var singleBytes = map[string]string{
	"dec8": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0¡¢£\uFFFD¥\uFFFD§¤©ª«\uFFFD\uFFFD\uFFFD\uFFFD°±²³\uFFFDµ¶·\uFFFD¹º»¼½\uFFFD¿" +
		"ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ\uFFFDÑÒÓÔÕÖŒØÙÚÛÜŸ\uFFFDßàáâãäåæçèéêëìíîï\uFFFDñòóôõöœøùúûüÿ\uFFFD\uFFFD",
	"cp850": "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐" +
		"└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u00ad±‗¾¶§÷¸°¨·¹³²■\u00a0",
	"latin1": "€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ\u00a0¡¢£¤¥¦§¨©ª«¬\u00ad®¯°±²³´µ¶·¸¹º»¼½¾¿" +
		"ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
	"hp8": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0ÀÂÈÊËÎÏ´ˋˆ¨˜ÙÛ₤¯Ýý°ÇçÑñ¡¿¤£¥§ƒ¢" +
		"âêôûáéóúàèòùäëöüÅîØÆåíøæÄìÖÜÉïßÔÁÃãÐðÍÌÓÒÕõŠšÚŸÿÞþ·µ¶¾—¼½ªº«■»±\uFFFD",
	"koi8r": "─│┌┐└┘├┤┬┴┼▀▄█▌▐░▒▓⌠■∙√≈≤≥\u00a0⌡°²·÷═║╒ё╓╔╕╖╗╘╙╚╛╜╝╞╟╠╡Ё╢╣╤╥╦╧╨╩╪╫╬©" +
		"юабцдефгхийклмнопярстужвьызшэщчъЮАБЦДЕФГХИЙКЛМНОПЯРСТУЖВЬЫЗШЭЩЧЪ",
	"latin2": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u00adŽŻ°ą˛ł´ľśˇ¸šşťź˝žż" +
		"ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
	"swe7":  "",
	"ascii": "",
	"hebrew": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0\uFFFD¢£¤¥¦§¨©×«¬\u00ad®‾°±²³´µ¶·¸¹÷»¼½¾\uFFFD" +
		"\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD‗\u05d0\u05d1\u05d2\u05d3\u05d4\u05d5\u05d6\u05d7\u05d8\u05d9\u05da\u05db\u05dc\u05dd\u05de\u05df\u05e0\u05e1\u05e2\u05e3\u05e4\u05e5\u05e6\u05e7\u05e8\u05e9\u05ea\uFFFD\uFFFD\u200e\u200f\uFFFD",
	"tis620": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\uFFFDกขฃคฅฆงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟ" +
		"ภมยรฤลฦวศษสหฬอฮฯะ\u0e31าำ\u0e34\u0e35\u0e36\u0e37\u0e38\u0e39\u0e3a\uFFFD\uFFFD\uFFFD\uFFFD฿เแโใไๅๆ\u0e47\u0e48\u0e49\u0e4a\u0e4b\u0e4c\u0e4d\u0e4e๏๐๑๒๓๔๕๖๗๘๙๚๛\uFFFD\uFFFD\uFFFD\uFFFD",
	"latin7": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0”¢£¤„¦§Ø©Ŗ«¬\u00ad®Æ°±²³“µ¶·ø¹ŗ»¼½¾æ" +
		"ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž’",
	"koi8u": "─│┌┐└┘├┤┬┴┼▀▄█▌▐░▒▓⌠■•√≈≤≥\u00a0⌡°²·÷═║╒ёє╔ії╗╘╙╚╛ґ╝╞╟╠╡ЁЄ╣ІЇ╦╧╨╩╪Ґ╬©" +
		"юабцдефгхийклмнопярстужвьызшэщчъЮАБЦДЕФГХИЙКЛМНОПЯРСТУЖВЬЫЗШЭЩЧЪ",
	"greek": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0ʽʼ£\uFFFD\uFFFD¦§¨©\uFFFD«¬\u00ad\uFFFD―°±²³΄΅Ά·ΈΉΊ»Ό½ΎΏ" +
		"ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡ\uFFFDΣΤΥΦΧΨΩΪΫάέήίΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώ\uFFFD",
	"cp1250": "€\uFFFD‚\uFFFD„…†‡\uFFFD‰Š‹ŚŤŽŹ\uFFFD‘’“”•–—\uFFFD™š›śťžź\u00a0ˇ˘Ł¤Ą¦§¨©Ş«¬\u00ad®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż" +
		"ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
	"latin5": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0¡¢£¤¥¦§¨©ª«¬\u00ad®¯°±²³´µ¶·¸¹º»¼½¾¿" +
		"ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ",
	"armscii8": "\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0❁§։\u0029\u0028»«—\u002e՝\u002c\u002d՟…՜՛՞ԱաԲբԳգԴդԵեԶզԷէ" +
		"ԸըԹթԺժԻիԼլԽխԾծԿկՀհՁձՂղՃճՄմՅյՆնՇշՈոՉչՊպՋջՌռՍսՎվՏտՐրՑցՒւՓփՔքՕօՖֆ’\u0027",
	"cp866": "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмноп░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
		"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀рстуфхцчшщъыьэюяЁёЄєЇїЎў°∙·√ⁿ²■\u00a0",
	"keybcs2": "ČüéďäĎŤčěĚĹÍľĺÄÁÉžŽôöÓůÚýÖÜŠĽÝŘťáíóúňŇŮÔšřŕŔ¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
		"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0",
	"macce": "ÄĀāÉĄÖÜáąČäčĆćéŹźĎíďĒēĖóėôöõúĚěü†°Ę£§•¶ß®©™ę¨≠ģĮįĪ≤≥īĶ∂∑łĻļĽľĹĺŅ" +
		"ņŃ¬√ńŇ∆«»…\u00a0ňŐÕőŌ–—“”‘’÷◊ōŔŕŘ‹›řŖŗŠ‚„šŚśÁŤťÍŽžŪÓÔūŮÚůŰűŲųÝýķŻŁżĢˇ",
	"macroman": "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø" +
		"¿¡¬√ƒ≈∆«»…\u00a0ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\uf8ffÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ",
	"cp852": "ÇüéâäůćçłëŐőîŹÄĆÉĹĺôöĽľŚśÖÜŤťŁ×čáíóúĄąŽžĘę¬źČş«»░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐" +
		"└┴┬├─┼Ăă╚╔╩╦╠═╬¤đĐĎËďŇÍÎě┘┌█▄ŢŮ▀ÓßÔŃńňŠšŔÚŕŰýÝţ´\u00ad˝˛ˇ˘§÷¸°¨˙űŘř■\u00a0",
	"cp1251": "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\uFFFD™љ›њќћџ\u00a0ЎўЈ¤Ґ¦§Ё©Є«¬\u00ad®Ї°±Ііґµ¶·ё№є»јЅѕї" +
		"АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя",
	"cp1256": "€\u067e‚ƒ„…†‡ˆ‰\uFFFD‹Œ\u0686\u0698\uFFFD\u06af‘’“”•–—\uFFFD™\uFFFD›œ\u200c\u200d\uFFFD\u00a0،¢£¤¥¦§¨©\uFFFD«¬\u00ad®¯°±²³´µ¶·¸¹\u061b»¼½¾\u061f" +
		"\uFFFD\u0621\u0622\u0623\u0624\u0625\u0626\u0627\u0628\u0629\u062a\u062b\u062c\u062d\u062e\u062f\u0630\u0631\u0632\u0633\u0634\u0635\u0636×\u0637\u0638\u0639\u063a\u0640\u0641\u0642\u0643à\u0644â\u0645\u0646\u0647\u0648çèéêë\u0649\u064aîï\u064b\u064c\u064d\u064eô\u064f\u0650÷\u0651ù\u0652ûü\u200e\u200f\uFFFD",
	"cp1257": "€\uFFFD‚\uFFFD„…†‡\uFFFD‰\uFFFD‹\uFFFD¨ˇ¸\uFFFD‘’“”•–—\uFFFD™\uFFFD›\uFFFD¯˛\uFFFD\u00a0\uFFFD¢£¤\uFFFD¦§Ø©Ŗ«¬\u00ad®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ" +
		"ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙",
	"geostd8": "€\uFFFD‚\uFFFD„…†‡\uFFFD‰\uFFFD‹\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD‘’“”•–—\uFFFD\uFFFD\uFFFD›\uFFFD\uFFFD\uFFFD\uFFFD\u00a0¡¢£¤¥¦§¨©ª«¬\u00ad®¯°±²³´µ¶·¸¹º»¼½¾¿" +
		"აბგდევზჱთიკლმნჲოპჟრსტჳუფქღყშჩცძწჭხჴჯჰჵ\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD№\uFFFD\uFFFD",
}

// A multiByte is a character set whose characters are ASCII, half-width katakana of one
// byte, or two bytes; in EUC also three that begin with 0x8f, and in GB 18030 four.
type multiByte struct {
	name string
	most int
	base encoding.Encoding
	// own is what MySQL maps otherwise than base: first-last:character or code:character.
	// The characters of a run follow each other. Codes have the bytes of a character in
	// them; those of EUC that begin with 0x8f lack that byte and the high bit of the last.
	own   string
	table func() []uint16
}

// splitRun reads first-last:rest or first:rest.
func splitRun(token string, base int) (first, last int, rest string) {
	codes, rest, _ := strings.Cut(token, ":")
	from, to, found := strings.Cut(codes, "-")
	if !found {
		to = from
	}
	number := func(s string) int {
		n, err := strconv.ParseUint(s, base, 31)
		if err != nil {
			panic("mysql: a table of character sets is damaged: " + err.Error())
		}
		return int(n)
	}
	return number(from), number(to), rest
}

// makeTable returns the characters by their code: one byte or two, big-endian, and three
// as in own. All are below U+10000, and 0 means that there is none.
func (m *multiByte) makeTable() []uint16 {
	t := make([]uint16, 1<<16)
	dec := m.base.NewDecoder()
	set := func(code int, p ...byte) {
		out, err := dec.Bytes(p)
		r, n := utf8.DecodeRune(out)
		const katakana = 0xff61
		if err == nil && n == len(out) && r != utf8.RuneError && (len(p) > 1 || r >= katakana) {
			t[code] = uint16(r)
		}
	}
	for i := 0x80; i < 0x100; i++ {
		set(i, byte(i))
		for j := range 0x100 {
			set(i<<8|j, byte(i), byte(j))
			if m.most == 3 && i > 0xa0 && j > 0xa0 {
				set(i<<8|j&0x7f, 0x8f, byte(i), byte(j))
			}
		}
	}
	for token := range strings.FieldsSeq(m.own) {
		first, last, char := splitRun(token, 16)
		r, _, _ := splitRun(char, 16)
		for code := first; code <= last; code++ {
			t[code] = uint16(r + code - first)
		}
	}
	return t
}

func (m *multiByte) decode(out, p []byte) ([]byte, bool) {
	t := m.table()
	for len(p) > 0 {
		c := p[0]
		if c < utf8.RuneSelf {
			out, p = append(out, c), p[1:]
			continue
		}
		var r uint16
		n := 1
		switch {
		case c == 0x8f && m.most == 3:
			if len(p) < 3 || p[1] <= 0xa0 || p[2] <= 0xa0 {
				return nil, false
			}
			r, n = t[int(p[1])<<8|int(p[2]&0x7f)], 3
		case m.most == 4 && len(p) > 3 && p[1]-'0' <= 9:
			wide, ok := gb18030(p[:4])
			if !ok {
				return nil, false
			}
			out, p = utf8.AppendRune(out, wide), p[4:]
			continue
		case t[c] != 0:
			r = t[c]
		case len(p) > 1:
			r, n = t[int(c)<<8|int(p[1])], 2
		}
		if r == 0 {
			return nil, false
		}
		out, p = utf8.AppendRune(out, rune(r)), p[n:]
	}
	return out, true
}

// gb18030 decodes a character of four bytes, most of which are counted and not listed.
func gb18030(p []byte) (rune, bool) {
	const (
		replacement = "\x84\x31\xa4\x37" // is U+FFFD, by which the library shows what is none
		moved       = "\x81\x35\xf4\x37" // and U+1E3F have changed places in 2005
	)
	switch string(p) {
	case replacement:
		return utf8.RuneError, true
	case moved:
		return 0xe7c7, true
	}
	var out [8]byte
	n, _, err := simplifiedchinese.GB18030.NewDecoder().Transform(out[:], p, true)
	r, size := utf8.DecodeRune(out[:n])
	return r, err == nil && size == n && r != utf8.RuneError
}

var multiBytes = []*multiByte{
	{name: "big5", most: 2, base: traditionalchinese.Big5, own: `
		a145:2022 a14e:ff64 a1c2:203e a1e3:223c a1f2:2641 a1f3:2609 a241:ff0f a242:ff3c a244:00a5 a246-a247:00a2 c6a1:30fe c6a2-c6a3:309d
		c6a4:3005 c6a5-c6f7:3041 c6f8-c6fe:30a1 c740-c77e:30a8 c7a1-c7b0:30e7 c7b1-c7b2:0414 c7b3:0401 c7b4-c7ba:0416 c7bb-c7cd:0423
		c7ce:0451 c7cf-c7e8:0436 c7e9-c7f2:2460 c7f3-c7fc:2474`},
	{name: "gbk", most: 2, base: simplifiedchinese.GBK},
	{name: "gb2312", most: 2, base: simplifiedchinese.GBK, own: `
		a1a4:30fb a1aa:2015`},
	{name: "sjis", most: 2, base: japanese.ShiftJIS, own: `
		815f:005c 8160:301c 8161:2016 817c:2212 8191-8192:00a2 81ca:00ac`},
	{name: "cp932", most: 2, base: japanese.ShiftJIS, own: `
		f040-f07e:e000 f080-f0fc:e03f f140-f17e:e0bc f180-f1fc:e0fb f240-f27e:e178 f280-f2fc:e1b7 f340-f37e:e234 f380-f3fc:e273
		f440-f47e:e2f0 f480-f4fc:e32f f540-f57e:e3ac f580-f5fc:e3eb f640-f67e:e468 f680-f6fc:e4a7 f740-f77e:e524 f780-f7fc:e563
		f840-f87e:e5e0 f880-f8fc:e61f f940-f97e:e69c f980-f9fc:e6db`},
	{name: "ujis", most: 3, base: japanese.EUCJP, own: `
		a1c0:005c a1c1:301c a1c2:2016 a1dd:2212 a1f1-a1f2:00a2 a2cc:00ac f5a1-f5fe:e000 f6a1-f6fe:e05e f7a1-f7fe:e0bc f8a1-f8fe:e11a
		f9a1-f9fe:e178 faa1-fafe:e1d6 fba1-fbfe:e234 fca1-fcfe:e292 fda1-fdfe:e2f0 fea1-fefe:e34e a237:007e f521-f57e:e3ac f621-f67e:e40a
		f721-f77e:e468 f821-f87e:e4c6 f921-f97e:e524 fa21-fa7e:e582 fb21-fb7e:e5e0 fc21-fc7e:e63e fd21-fd7e:e69c fe21-fe7e:e6fa`},
	{name: "eucjpms", most: 3, base: japanese.EUCJP, own: `
		f5a1-f5fe:e000 f6a1-f6fe:e05e f7a1-f7fe:e0bc f8a1-f8fe:e11a f9a1-f9fe:e178 faa1-fafe:e1d6 fba1-fbfe:e234 fca1-fcfe:e292
		fda1-fdfe:e2f0 fea1-fefe:e34e a243:ffe4 f373-f37c:2170 f37d-f37e:2160 f421-f428:2162 f429:ff07 f42a:ff02 f42b:3231 f42c:2116
		f42d:2121 f42e:70bb f42f:4efc f430:50f4 f431:51ec f432:5307 f433:5324 f434:fa0e f435:548a f436:5759 f437-f438:fa0f f439:589e
		f43a:5bec f43b:5cf5 f43c:5d53 f43d:fa11 f43e:5fb7 f43f:6085 f440:6120 f441:654e f442:663b f443:6665 f444:fa12 f445:f929 f446:6801
		f447-f448:fa13 f449:6a6b f44a:6ae2 f44b:6df8 f44c:6df2 f44d:7028 f44e-f44f:fa15 f450:7501 f451:7682 f452:769e f453:fa17 f454:7930
		f455-f458:fa18 f459:7ae7 f45a-f45b:fa1c f45c:7da0 f45d:7dd6 f45e:fa1e f45f:8362 f460:fa1f f461:85b0 f462-f463:fa20 f464:8807
		f465:fa22 f466:8b7f f467:8cf4 f468:8d76 f469-f46b:fa23 f46c:90de f46d:fa26 f46e:9115 f46f-f470:fa27 f471:9592 f472:f9dc f473:fa29
		f474:973b f475:974d f476:9751 f477-f479:fa2a f47a:999e f47b:9ad9 f47c:9b72 f47d:fa2d f47e:9ed1 f521-f57e:e3ac f621-f67e:e40a
		f721-f77e:e468 f821-f87e:e4c6 f921-f97e:e524 fa21-fa7e:e582 fb21-fb7e:e5e0 fc21-fc7e:e63e fd21-fd7e:e69c fe21-fe7e:e6fa`},
	{name: "euckr", most: 2, base: korean.EUCKR},
	{name: "gb18030", most: 4, base: simplifiedchinese.GB18030, own: `
		a140-a17e:e4c6 a180-a1a0:e505 a240-a27e:e526 a280-a2a0:e565 a2ab-a2b0:e766 a2e4:e76d a2ef-a2f0:e76e a2fd-a2fe:e770 a340-a37e:e586
		a380-a3a0:e5c5 a440-a47e:e5e6 a480-a4a0:e625 a4f4-a4fe:e772 a540-a57e:e646 a580-a5a0:e685 a5f7-a5fe:e77d a640-a67e:e6a6
		a680-a6a0:e6e5 a6b9-a6c0:e785 a6d9-a6df:e78d a6ec-a6ed:e794 a6f3:e796 a6f6-a6fe:e797 a740-a77e:e706 a780-a7a0:e745 a7c2-a7d0:e7a0
		a7f2-a7fe:e7af a896-a8a0:e7bc a8bc:1e3f a8c1-a8c4:e7c9 a8ea-a8fe:e7cd a958:e7e2 a95b:e7e3 a95d-a95f:e7e4 a997-a9a3:e7f4
		a9f0-a9fe:e801 aaa1-aafe:e000 aba1-abfe:e05e aca1-acfe:e0bc ada1-adfe:e11a aea1-aefe:e178 afa1-affe:e1d6 d7fa-d7fe:e810
		f8a1-f8fe:e234 f9a1-f9fe:e292 faa1-fafe:e2f0 fba1-fbfe:e34e fca1-fcfe:e3ac fda1-fdfe:e40a fe51-fe53:e816 fe59:e81e fe61:e826
		fe66-fe67:e82b fe6c-fe6d:e831 fe76:e83b fe7e:e843 fe90-fe91:e854 fea0:e864 fea1-fefe:e468`},
}

// collations are the character sets of the collations below 1024. Gaps are filled where
// both sides have the same one.
var collations = sync.OnceValue(func() map[int]*charset {
	m := make(map[int]*charset)
	for token := range strings.FieldsSeq(`
		1:big5 2:latin2 3:dec8 4:cp850 5:latin1 6:hp8 7:koi8r 8:latin1 9:latin2 10:swe7 11:ascii 12:ujis 13:sjis 14:cp1251 15:latin1
		16:hebrew 18:tis620 19:euckr 20:latin7 21:latin2 22:koi8u 23:cp1251 24:gb2312 25:greek 26:cp1250 27:latin2 28:gbk 29:cp1257
		30:latin5 31:latin1 32:armscii8 33:utf8mb3 34:cp1250 35:ucs2 36:cp866 37:keybcs2 38:macce 39:macroman 40:cp852 41-42:latin7
		43:macce 44:cp1250 45-46:utf8mb4 47-49:latin1 50-52:cp1251 53:macroman 54-55:utf16 56:utf16le 57:cp1256 58-59:cp1257 60-61:utf32
		62:utf16le 63:binary 64:armscii8 65:ascii 66:cp1250 67:cp1256 68:cp866 69:dec8 70:greek 71:hebrew 72:hp8 73:keybcs2 74:koi8r
		75:koi8u 76:utf8mb3 77:latin2 78:latin5 79:latin7 80:cp850 81:cp852 82:swe7 83:utf8mb3 84:big5 85:euckr 86:gb2312 87:gbk 88:sjis
		89:tis620 90:ucs2 91:ujis 92-93:geostd8 94:latin1 95-96:cp932 97-98:eucjpms 99:cp1250 101-124:utf16 128-159:ucs2 160-183:utf32
		192-223:utf8mb3 224-247:utf8mb4 248-250:gb18030 255-511:utf8mb4 576-607:utf8mb3 608-639:utf8mb4 640-671:ucs2 672-703:utf16
		736-767:utf32`) {
		first, last, name := splitRun(token, 10)
		for id := first; id <= last; id++ {
			m[id] = charsets[name]
		}
	}
	return m
})

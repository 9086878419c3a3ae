package mysql

import (
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"
)

// encodeDecimal is the other direction, by another way: digits as text.
func encodeDecimal(n *big.Int, precision, scale int) []byte {
	digits := new(big.Int).Abs(n).String()
	digits = strings.Repeat("0", precision-len(digits)) + digits
	var out []byte
	group := func(s string) {
		u := uint32(0)
		for _, c := range s {
			u = u*10 + uint32(c-'0')
		}
		for i := groupBytes[len(s)] - 1; i >= 0; i-- {
			out = append(out, byte(u>>(8*i)))
		}
	}
	before, after := digits[:precision-scale], digits[precision-scale:]
	for len(before) > 0 {
		k := (len(before)-1)%groupDigits + 1
		group(before[:k])
		before = before[k:]
	}
	for len(after) > 0 {
		k := min(len(after), groupDigits)
		group(after[:k])
		after = after[k:]
	}
	out[0] ^= 0x80
	if n.Sign() < 0 {
		for i := range out {
			out[i] ^= 0xff
		}
	}
	return out
}

// plainText is the number as text, by big arithmetic.
func plainText(n *big.Int, scale int) string {
	return new(big.Rat).SetFrac(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)).FloatString(scale)
}

func TestDecimal_EverySizeIsReadAsItIsStored(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for precision := 1; precision <= maxPrecision; precision++ {
		for scale := 0; scale <= min(precision, maxScale); scale++ {
			limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(precision)), nil)
			most := new(big.Int).Sub(limit, big.NewInt(1))
			numbers := []*big.Int{big.NewInt(0), big.NewInt(1), big.NewInt(-1), most, new(big.Int).Neg(most)}
			for range 5 {
				n, _ := new(big.Int).SetString(randomDigits(r, 1+r.IntN(precision)), 10)
				numbers = append(numbers, n, new(big.Int).Neg(n))
			}
			for _, n := range numbers {
				p := encodeDecimal(n, precision, scale)
				if len(p) != decimalSize(precision, scale) {
					t.Fatalf("decimal(%d,%d) has %d bytes, want %d", precision, scale, decimalSize(precision, scale), len(p))
				}
				got, ok := appendDecimal(nil, p, precision, scale)
				if want := plainText(n, scale); !ok || string(got) != want {
					t.Fatalf("decimal(%d,%d) %x is %s (%v), want %s", precision, scale, p, got, ok, want)
				}
			}
		}
	}
}

func randomDigits(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('0' + r.IntN(10))
	}
	return string(b)
}

func TestDecimal_NegativeZeroIsZero(t *testing.T) {
	p := encodeDecimal(new(big.Int), 10, 2)
	for i := range p {
		p[i] ^= 0xff
	}
	if got, ok := appendDecimal(nil, p, 10, 2); !ok || string(got) != "0.00" {
		t.Errorf("got %s, %v", got, ok)
	}
}

// addDecimals adds the numbers of rows of an INT and a DECIMAL.
func addDecimals(f *testing.F, ev loggedEvent, precision, scale int) {
	f.Helper()
	e, err := parseRows(ev.typ, ev.body)
	if err != nil {
		f.Fatal(err)
	}
	size, added := decimalSize(precision, scale), 0
	c := cursor{rest: e.rows}
	for len(c.rest) > 0 {
		const isNull = 2
		null := c.uint8()&isNull != 0
		c.uint32() // id
		if !null {
			f.Add(c.bytes(size), byte(precision), byte(scale))
			added++
		}
	}
	if c.failed || added == 0 {
		f.Fatalf("the recorded rows of a decimal(%d,%d) cannot be read", precision, scale)
	}
}

func FuzzDecimal(f *testing.F) {
	f.Add(encodeDecimal(big.NewInt(-12345), 10, 2), byte(10), byte(2))
	f.Add(encodeDecimal(big.NewInt(1), 65, 30), byte(65), byte(30))
	for _, file := range recorded(f) {
		var m *tableMap
		for _, ev := range readEvents(f, file) {
			if ev.typ == replication.TABLE_MAP_EVENT {
				var err error
				if m, err = parseTableMap(ev.body, isMariaDB(file)); err != nil {
					f.Fatal(err)
				}
			} else if c := &m.columns[1]; c.typ == typeNewDecimal {
				addDecimals(f, ev, int(c.meta>>8), int(c.meta&0xff))
			}
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, precision, scale byte) {
		if precision < 1 || precision > maxPrecision || scale > min(precision, maxScale) || len(p) != decimalSize(int(precision), int(scale)) {
			return
		}
		got, ok := appendDecimal(nil, p, int(precision), int(scale))
		if !ok {
			return
		}
		n, valid := new(big.Int).SetString(strings.Replace(string(got), ".", "", 1), 10)
		if !valid || plainText(n, int(scale)) != string(got) {
			t.Fatalf("%x is %s", p, got)
		}
		if n.Sign() != 0 && string(encodeDecimal(n, int(precision), int(scale))) != string(p) {
			t.Errorf("%x is %s, which is stored as %x", p, got, encodeDecimal(n, int(precision), int(scale)))
		}
	})
}

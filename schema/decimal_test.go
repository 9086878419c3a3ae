package schema

import (
	"bytes"
	"errors"
	"math/big"
	"strings"
	"testing"
)

// unscaled is AppendUnscaled by the textbook.
func unscaled(text string, scale int) *big.Int {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
	if !r.IsInt() {
		return nil
	}
	return r.Num()
}

// fromTwos reads two's complement.
func fromTwos(b []byte) *big.Int {
	v := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0] >= 0x80 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return v
}

// shortest reports whether no byte could be left out.
func shortest(b []byte) bool {
	return len(b) == 1 || len(b) > 1 && !(b[0] == 0 && b[1] < 0x80) && !(b[0] == 0xff && b[1] >= 0x80)
}

func checkUnscaled(t *testing.T, text string, scale int) {
	t.Helper()
	want := unscaled(text, scale)
	got, err := AppendUnscaled([]byte{7}, []byte(text), scale)
	switch {
	case want == nil && err == nil:
		t.Errorf("%s at scale %d: got %x, want an error", text, scale, got)
	case want == nil:
	case err != nil:
		t.Errorf("%s at scale %d: %v", text, scale, err)
	case got[0] != 7 || fromTwos(got[1:]).Cmp(want) != 0 || !shortest(got[1:]):
		t.Errorf("%s at scale %d: got %x, want %s in the fewest bytes", text, scale, got[1:], want)
	}
}

func TestAppendUnscaled_IsExactAndShort(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"0", "-0", "1", "-1", "127", "128", "-128", "-129", "255", "256", "32767", "32768", "-32768", "-32769",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616",
		"999999999999999999", "99999999999999999999999999999999999999", "-99999999999999999999999999999999999999",
		"170141183460469231731687303715884105727", "170141183460469231731687303715884105728", "-170141183460469231731687303715884105728",
		strings.Repeat("9", 200), "-" + strings.Repeat("9", 200), "1.5", "-1.50", "0.001", "12345.6789",
	} {
		for _, scale := range []int{0, 1, 2, 4, 18, 30} {
			checkUnscaled(t, text, scale)
		}
	}
}

func TestAppendUnscaled_RefusesWhatIsNoNumber(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "-", ".", "1.", ".5", "1.2.3", "1e5", "+1", "x", "--1", "1-"} {
		if _, err := AppendUnscaled(nil, []byte(text), 2); !errors.Is(err, errDecimal) {
			t.Errorf("%q: got %v", text, err)
		}
	}
	for _, text := range []string{"NaN", "Infinity", "-Infinity"} {
		if _, err := AppendUnscaled(nil, []byte(text), 2); !errors.Is(err, ErrSpecial) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestAppendVariable_KeepsTheValuesOwnScale(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		bytes []byte
		scale int
	}{
		"1.10": {[]byte{11}, 1}, "100": {[]byte{100}, 0}, "0.000": {[]byte{0}, 0}, "-0.5": {[]byte{0xfb}, 1},
	} {
		got, scale, err := AppendVariable(nil, []byte(text))
		if err != nil || !bytes.Equal(got, want.bytes) || scale != want.scale {
			t.Errorf("%s: got %x, scale %d, %v", text, got, scale, err)
		}
	}
}

func TestAppendDecimalText_IsJavas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		scale int
		want  string
	}{
		{"1.5", 2, "1.50"},
		{"-1.5", 1, "-1.5"},
		{"0", 0, "0"},
		{"0", 2, "0.00"},
		{"-0.00", 2, "0.00"},
		{"0.05", 2, "0.05"},
		{"123", 0, "123"},
		{"0.000001", 6, "0.000001"},
		{"0.0000001", 7, "1E-7"},
		{"0.00000012", 8, "1.2E-7"},
		{"0", 7, "0E-7"},
	} {
		got, err := AppendDecimalText(nil, []byte(c.text), c.scale)
		if err != nil || string(got) != c.want {
			t.Errorf("%s at scale %d: got %s %v, want %s", c.text, c.scale, got, err, c.want)
		}
	}
}

func FuzzAppendUnscaled(f *testing.F) {
	for _, s := range []string{"0", "-1.50", "9223372036854775808.1", "NaN", "1e5", ".", strings.Repeat("7", 60)} {
		f.Add(s, 2)
	}
	f.Fuzz(func(t *testing.T, text string, scale int) {
		if scale < 0 || scale > 100 || len(text) > 200 {
			return
		}
		if d, err := parseDecimal([]byte(text)); err != nil || len(d.int) == 0 {
			if _, err := AppendUnscaled(nil, []byte(text), scale); err == nil {
				t.Errorf("%q is taken", text)
			}
			return
		}
		checkUnscaled(t, text, scale)
	})
}

package mysql

import (
	"testing"
	"time"
)

func TestCivilDays_CountsEveryDayOfTheCalendar(t *testing.T) {
	days, _ := civilDays(0, 1, 1)
	for d := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC); d.Year() < 10_000; d = d.AddDate(0, 0, 1) {
		got, ok := civilDays(d.Year(), int(d.Month()), d.Day())
		if !ok || got != days || got != d.Unix()/86400 && got != (d.Unix()-86399)/86400 {
			t.Fatalf("%s is day %d (%v), want %d", d.Format(time.DateOnly), got, ok, days)
		}
		days++
	}
}

func TestCivilDays_DatesThatDoNotExistHaveNone(t *testing.T) {
	for _, d := range [][3]int{{0, 0, 0}, {2024, 0, 1}, {2024, 1, 0}, {2024, 2, 30}, {2023, 2, 29}, {1900, 2, 29}, {2024, 4, 31}, {2024, 13, 1}, {2024, 15, 31}} {
		if days, ok := civilDays(d[0], d[1], d[2]); ok {
			t.Errorf("%v is day %d", d, days)
		}
	}
}

// TestTime_AllFractionsAndSigns packs times as the server does.
func TestTime_AllFractionsAndSigns(t *testing.T) {
	for fsp := range 7 {
		c := cell{op: opTime2, width: uint8((fsp + 1) / 2)}
		unit := []int64{second, 100_000, 10_000, 1_000, 100, 10, 1}[fsp]
		for _, micros := range []int64{0, unit, 59*second + second - unit, 12*hour + 34*minute + 56*second + 7*unit, 838*hour + 59*minute + 59*second - unit} {
			for _, n := range []int64{micros, -micros} {
				v, err := c.time2(packTime(n, int(c.width)))
				if err != nil || v.Int() != n {
					t.Errorf("time(%d) %d is %v (%v)", fsp, n, v, err)
				}
			}
		}
	}
}

// packTime makes the number whose whole part and fraction have opposite offsets, as the
// server's my_time_packed_to_binary describes it.
func packTime(micros int64, width int) []byte {
	n := micros
	if n < 0 {
		n = -n
	}
	scale := []int64{second, 10_000, 100, 1}[width]
	packed := (n/hour<<12|n/minute%60<<6|n/second%60)<<(8*width) | n%second/scale
	if micros < 0 {
		packed = -packed
	}
	packed += 1 << (23 + 8*width)
	var out []byte
	for i := 2 + width; i >= 0; i-- {
		out = append(out, byte(packed>>(8*i)))
	}
	return out
}

package report

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode"
)

// none stands where there is no value.
const none = "–"

// number is a cell as a number, if it is one.
func number(cell any) (float64, bool) {
	switch v := reflect.ValueOf(cell); {
	case !v.IsValid():
		return 0, false
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanUint():
		return float64(v.Uint()), true
	case v.CanFloat():
		return v.Float(), true
	}
	return 0, false
}

// whole reports whether the column's values are integers.
func (c Column) whole() bool { return strings.HasSuffix(c.Format, "d") }

// Text is a cell as people read it.
func (c Column) Text(cell any) string {
	v, ok := number(cell)
	if cell == nil || (ok && (math.IsNaN(v) || math.IsInf(v, 0))) {
		return none
	}
	if c.whole() && ok {
		cell = int64(v)
	}
	s := fmt.Sprintf(c.Format, cell)
	if c.Format == "" || strings.Contains(s, "%!") {
		s = fmt.Sprint(cell)
	}
	if ok {
		return thousands(s)
	}
	return s
}

// thousands puts commas into the integer part of a number.
func thousands(s string) string {
	s = strings.TrimSpace(s)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	whole, rest := s[:end], s[end:]
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return sign + whole + rest
}

// short is the label of a tick: 20k, 1.5M, 0.05.
func short(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if a := math.Abs(v); a >= unit.size && a >= 1e4 {
			return strconv.FormatFloat(v/unit.size, 'g', 4, 64) + unit.name
		}
	}
	if v != 0 && math.Abs(v) < 1e-4 {
		return strconv.FormatFloat(v, 'g', 4, 64)
	}
	return strconv.FormatFloat(math.Round(v*1e9)/1e9, 'f', -1, 64)
}

// fontSize is the size of all text in charts, in pixels.
const fontSize = 12

// textWidth estimates how wide s is, for the widest of the usual fonts.
func textWidth(s string) float64 {
	em := 0.0
	for _, r := range s {
		switch {
		case strings.ContainsRune("iljI.,:;'|!()[] ", r):
			em += 0.4
		case strings.ContainsRune("mwMW%@µ×→", r):
			em += 0.98
		case r >= 0x1100:
			em += 1.05 // East Asian, emoji
		case unicode.IsUpper(r):
			em += 0.74
		default:
			em += 0.64
		}
	}
	return em * fontSize
}

// fit shortens s to width.
func fit(s string, width float64) string {
	if textWidth(s) <= width {
		return s
	}
	runes := []rune(s)
	for len(runes) > 0 && textWidth(string(runes)+"…") > width {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

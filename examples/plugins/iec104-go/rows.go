package main

import (
	"math"

	"iec104/edgeguest"
)

// rows of one scan, by the kind of value that a tag's type has.
type rows struct {
	reals edgeguest.Rows[float64]
	ints  edgeguest.Rows[int64]
	uints edgeguest.Rows[uint64]
	bools edgeguest.Rows[bool]
}

func (r *rows) add(tag edgeguest.Tag, typ byte, v value) {
	switch tag.Type {
	case "bool":
		r.bools.Add(tag.ID, isOn(typ, v.number), v.quality, v.ts)
	case "float32", "float64":
		r.reals.Add(tag.ID, v.number, v.quality, v.ts)
	case "uint64":
		r.uints.Add(tag.ID, uint64(math.Max(0, math.Round(v.number))), v.quality, v.ts)
	default:
		r.ints.Add(tag.ID, int64(math.Round(v.number)), v.quality, v.ts)
	}
}

func (r *rows) emit() {
	r.reals.Emit()
	r.ints.Emit()
	r.uints.Emit()
	r.bools.Emit()
}

// isOn: a double point is on at 2; everything else is where it is not 0.
func isOn(typ byte, number float64) bool {
	if typ == 3 || typ == 4 || typ == 31 {
		return number == 2
	}
	return number != 0
}

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"iec104/edgeguest"
)

const commandMax = 4 * time.Second // for one confirmation

// confirmation that is waited for.
type confirmation struct {
	typ        byte
	place      point
	isDone     bool
	isNegative bool
	cause      byte
}

// command of a tag: what it is sent as, and where to.
type command struct {
	typ      byte
	place    point
	isSelect bool
}

var commandTypes = map[string]byte{"single": cSC, "double": cDC, "normalized": cSENA, "scaled": cSENB, "short": cSENC}

// commandOf a tag that may be written: its options `command`, `command_address` and `select_before_operate`.
func commandOf(tag edgeguest.Tag, place point) (command, error) {
	if tag.Access == "R" {
		return command{}, nil
	}
	name, _ := tag.Options["command"].(string)
	typ, known := commandTypes[name]
	if !known {
		return command{}, errors.New("a tag that is written says `command`: single, double, normalized, scaled or short")
	}
	if at, ok := tag.Options["command_address"].(float64); ok {
		place.object = uint32(at)
	}
	isSelect, _ := tag.Options["select_before_operate"].(bool)
	return command{typ, place, isSelect}, nil
}

func (d *driver) Write(tag edgeguest.Tag, wanted any) error {
	place, err := placeOf(tag.Address)
	if err != nil {
		return edgeguest.Invalid
	}
	what, err := commandOf(tag, place)
	if err != nil || what.typ == 0 {
		return edgeguest.Unsupported
	}
	number, ok := numberOf(wanted)
	if !ok {
		return edgeguest.Invalid
	}
	data, err := payload(what.typ, number)
	if err != nil {
		edgeguest.Log(2, err.Error())
		return edgeguest.Invalid
	}
	if what.isSelect {
		data[len(data)-1] |= selectBit
		if err := d.confirmed(what, data); err != nil {
			// Selecting moves nothing: whatever became of it, the plant was not touched.
			if errors.Is(err, edgeguest.Refused) {
				return err
			}
			return edgeguest.NotSent
		}
		data[len(data)-1] &^= selectBit
	}
	return d.confirmed(what, data)
}

// confirmed sends a command and waits for its confirmation.
func (d *driver) confirmed(what command, data []byte) error {
	if err := d.link.sendI(d.command(what.typ, what.place.station, what.place.object, data)); err != nil {
		return err
	}
	d.waiting = &confirmation{typ: what.typ, place: what.place}
	defer func() { d.waiting = nil }()
	deadline := time.Now().Add(commandMax)
	for !d.waiting.isDone {
		left := time.Until(deadline)
		if left <= 0 || edgeguest.IsCancelled() {
			return edgeguest.Timeout
		}
		if _, err := d.link.take(min(left, time.Second), d.asdu); err != nil {
			return err
		}
	}
	if d.waiting.isNegative || d.waiting.cause >= cotUnknownType {
		return edgeguest.Refused
	}
	return nil
}

// answered takes what a station says of a command or an interrogation.
func (d *driver) answered(data []byte, cause byte, isNegative bool) {
	place := point{binary.LittleEndian.Uint16(data[4:]), 0}
	if len(data) >= headBytes+addressBytes {
		place.object = uint24(data[headBytes:])
	}
	isRefusal := isNegative || cause >= cotUnknownType && cause <= cotUnknownObject
	if data[0] == cIC {
		if known := d.stations[place.station]; known != nil && (cause == cotActivationTerm || isRefusal) {
			known.ended = true
		}
		return
	}
	if w := d.waiting; w != nil && w.typ == data[0] && w.place == place && (cause == cotActivationCon || isRefusal) {
		w.isDone, w.isNegative, w.cause = true, isNegative, cause
	}
}

// command is an ASDU with one object.
func (d *driver) command(typ byte, ca uint16, ioa uint32, data []byte) []byte {
	return append([]byte{
		typ, 1, cotActivation, d.options.Originator, byte(ca), byte(ca >> 8), byte(ioa), byte(ioa >> 8), byte(ioa >> 16),
	}, data...)
}

func numberOf(wanted any) (float64, bool) {
	switch v := wanted.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case float64:
		return v, !math.IsNaN(v)
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	}
	return 0, false
}

// payload of a command; its last byte has room for the select bit.
func payload(typ byte, number float64) ([]byte, error) {
	switch typ {
	case cSC:
		if number != 0 && number != 1 {
			return nil, fmt.Errorf("a single command is 0 or 1, not %g", number)
		}
		return []byte{byte(number)}, nil
	case cDC:
		if number != 0 && number != 1 {
			return nil, fmt.Errorf("a double command is 0 (off) or 1 (on), not %g", number)
		}
		return []byte{1 + byte(number)}, nil
	case cSENA:
		return set16(number*32768, number)
	case cSENB:
		return set16(number, number)
	}
	data := binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(number)))
	return append(data, 0), nil
}

func set16(scaled, number float64) ([]byte, error) {
	rounded := math.Round(scaled)
	if rounded == 32768 { // 1.0 is one step beyond what there is
		rounded = 32767
	}
	if rounded < math.MinInt16 || rounded > math.MaxInt16 {
		return nil, fmt.Errorf("%g is beyond the range of the set point", number)
	}
	return append(binary.LittleEndian.AppendUint16(nil, uint16(int16(rounded))), 0), nil
}

package main

import (
	"encoding/binary"
	"math"
)

// Information objects of IEC 60870-5-101, 7.2 and 7.3, with the sizes that 5-104 fixes: cause of transmission 2 bytes,
// common address 2, address of the object 3.
const (
	headBytes    = 6
	addressBytes = 3

	cotPeriodic, cotSpontaneous             = 1, 3
	cotActivation, cotActivationCon         = 6, 7
	cotActivationTerm, cotInterrogated      = 10, 20
	cotUnknownType, cotUnknownObject        = 44, 47
	cIC, cCI                                = 100, 101
	cSC, cDC, cSENA, cSENB, cSENC           = 45, 46, 48, 49, 50
	qoiStation, qccGeneral                  = 20, 5
	selectBit                          byte = 0x80
	qualityBad                              = 0x80000000
	qualityWaiting                          = 0x80320000 // BadWaitingForInitialData
	qualityLastUsable                       = 0x40900000 // UncertainLastUsableValue
	qualitySubstitute                       = 0x40910000 // UncertainSubstituteValue
	qualityExceeded                         = 0x40940000 // UncertainEngineeringUnitsExceeded
	qualityUncertain                        = 0x40000000
)

// point is a place in a station: common address and address of the information object.
type point struct {
	station uint16
	object  uint32
}

// value of a point. ts: ns UTC; 0: the device gave no time, or one that it calls invalid.
type value struct {
	number  float64
	quality uint32
	ts      int64
}

type timeTag int

const (
	untimed timeTag = iota
	cp24
	cp56
)

// kind of an information object: what its bytes before the time are, and what its time is.
type kind struct {
	decode func(data []byte) (float64, uint32)
	size   int
	time   timeTag
}

var kinds = map[byte]kind{
	1:  {singlePoint, 1, untimed}, // M_SP_NA_1
	2:  {singlePoint, 1, cp24},    // M_SP_TA_1
	30: {singlePoint, 1, cp56},    // M_SP_TB_1
	3:  {doublePoint, 1, untimed}, // M_DP_NA_1
	4:  {doublePoint, 1, cp24},    // M_DP_TA_1
	31: {doublePoint, 1, cp56},    // M_DP_TB_1
	9:  {normalized, 3, untimed},  // M_ME_NA_1
	10: {normalized, 3, cp24},     // M_ME_TA_1
	34: {normalized, 3, cp56},     // M_ME_TD_1
	21: {unqualified, 2, untimed}, // M_ME_ND_1
	11: {scaled, 3, untimed},      // M_ME_NB_1
	12: {scaled, 3, cp24},         // M_ME_TB_1
	35: {scaled, 3, cp56},         // M_ME_TE_1
	13: {short, 5, untimed},       // M_ME_NC_1
	14: {short, 5, cp24},          // M_ME_TC_1
	36: {short, 5, cp56},          // M_ME_TF_1
	15: {counter, 5, untimed},     // M_IT_NA_1
	16: {counter, 5, cp24},        // M_IT_TA_1
	37: {counter, 5, cp56},        // M_IT_TB_1
}

// status of a quality descriptor: IV, NT, SB, BL, OV, the worst first.
func status(descriptor byte) uint32 {
	switch {
	case descriptor&0x80 != 0: // IV: invalid
		return qualityBad
	case descriptor&0x40 != 0, descriptor&0x10 != 0: // NT: not topical; BL: blocked
		return qualityLastUsable
	case descriptor&0x20 != 0: // SB: substituted
		return qualitySubstitute
	case descriptor&0x01 != 0: // OV: overflow
		return qualityExceeded
	}
	return 0
}

func singlePoint(data []byte) (float64, uint32) {
	return float64(data[0] & 1), status(data[0] & 0xF0)
}

// doublePoint: 0 and 3 are neither off (1) nor on (2): between two ends, or a wire has come off.
func doublePoint(data []byte) (float64, uint32) {
	number, quality := data[0]&3, status(data[0]&0xF0)
	if quality == 0 && number != 1 && number != 2 {
		quality = qualityUncertain
	}
	return float64(number), quality
}

func word(data []byte) float64 { return float64(int16(binary.LittleEndian.Uint16(data))) }

func normalized(data []byte) (float64, uint32) { return word(data) / 32768, status(data[2]) }

func unqualified(data []byte) (float64, uint32) { return word(data) / 32768, 0 }

func scaled(data []byte) (float64, uint32) { return word(data), status(data[2]) }

func short(data []byte) (float64, uint32) {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(data))), status(data[4])
}

// counter: the byte behind it holds sequence, carry, adjusted and IV.
func counter(data []byte) (float64, uint32) {
	return float64(int32(binary.LittleEndian.Uint32(data))), status(data[4] & 0x80)
}

// objects of an ASDU, those in sequence and those with addresses of their own; false: its length does not fit.
func objects(asdu []byte, nowNS int64, offsetNS int64, each func(point, byte, value)) bool {
	what, known := kinds[asdu[0]]
	if !known {
		return true
	}
	count, isSequence := int(asdu[1]&0x7F), asdu[1]&0x80 != 0
	station := binary.LittleEndian.Uint16(asdu[4:])
	size := what.size + [...]int{0, 3, 7}[what.time]
	rest := asdu[headBytes:]
	expected := count * (addressBytes + size)
	if isSequence {
		expected = addressBytes + count*size
	}
	if count == 0 || len(rest) != expected {
		return false
	}
	var object uint32
	for n := range count {
		if n == 0 || !isSequence {
			object = uint24(rest)
			rest = rest[addressBytes:]
		} else {
			object++
		}
		number, quality := what.decode(rest)
		each(point{station, object}, asdu[0], value{number, quality, what.stamp(rest, nowNS, offsetNS)})
		rest = rest[size:]
	}
	return true
}

func (k kind) stamp(data []byte, nowNS, offsetNS int64) int64 {
	switch k.time {
	case cp24:
		return cp24At(data[k.size:], nowNS)
	case cp56:
		return cp56At(data[k.size:], offsetNS)
	}
	return 0
}

func uint24(data []byte) uint32 { return uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 }

package edgeguest

import (
	"errors"
	"unsafe"
)

// Driver is what contract/driver.wit asks of a guest. Calls never overlap; whatever is kept lives as long as the instance.
type Driver interface {
	Meta() Meta
	// Create takes the `options` of the device's row, JSON; no I/O.
	Create(options []byte) error
	// Plan takes the tags of one scan class; pure; again for the same number: replaces it. May return Problems.
	Plan(group uint32, tags []Tag) error
	// Connect: the channels are open, make the device ready to be read.
	Connect(channels uint32) error
	// Poll emits a row for each tag of a group.
	Poll(group, budgetMS uint32) error
	// Write takes float64, int64, uint64, bool, string or []byte, as the tag's type has it.
	Write(tag Tag, value any) error
	Disconnect()
}

// Meta says who the driver is.
type Meta struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Tag is one row of variables.yml. Type: bool, int8 .. uint64, float32, float64, string, bytes.
type Tag struct {
	ID      uint32         `json:"id"`
	Name    string         `json:"name"`
	Address string         `json:"address"`
	Type    string         `json:"type"`
	Access  string         `json:"access"`
	Options map[string]any `json:"options"`
}

// Problem is why one tag cannot be read; Key is the column at fault, such as "address".
type Problem struct {
	Tag  uint32 `json:"tag"`
	Key  string `json:"key"`
	Text string `json:"text"`
}

// Problems of tags, as Plan returns them.
type Problems []Problem

func (p Problems) Error() string { return "tags cannot be read" }

// Errc is what a call came to, where it did not come to what was asked.
type Errc byte

// NotSent: no byte of a write has left; Refused: the device said no; Timeout, Closed, Internal: nobody knows.
const (
	Timeout Errc = iota
	Closed
	Refused
	Invalid
	Unsupported
	Internal
	Cancelled
	NotSent
	Busy
)

var names = [...]string{"timeout", "closed", "refused", "invalid", "unsupported", "internal", "cancelled", "not sent", "busy"}

func (e Errc) Error() string { return names[e] }

func errcOf(err error) Errc {
	var code Errc
	if errors.As(err, &code) {
		return code
	}
	return Internal
}

const (
	reals uint32 = iota
	ints
	uints
	bools
	texts
)

// Send returns nil or an Errc: Closed, Timeout, or NotSent where no byte has left.
func Send(channel uint32, data []byte) error {
	var result [2]byte // result<_, errc>: the payload is at 1
	hostSend(channel, unsafe.Pointer(unsafe.SliceData(data)), uint32(len(data)), unsafe.Pointer(&result))
	keep(data)
	if result[0] != 0 {
		return Errc(result[1])
	}
	return nil
}

// Recv returns what has come, as soon as anything has; or an Errc: Timeout, Closed, Cancelled.
func Recv(channel, sizeMax, timeoutMS uint32) ([]byte, error) {
	var result [3]uint32 // result<list<u8>, errc>: discriminant; place or errc; length
	before := len(held)
	hostRecv(channel, sizeMax, timeoutMS, unsafe.Pointer(&result))
	if byte(result[0]) != 0 {
		return nil, Errc(result[1])
	}
	data := append([]byte(nil), bytesAt(at(result[1]), result[2])...)
	held = held[:before]
	return data, nil
}

// NowNS is the gateway's wall time, UTC.
func NowNS() int64 { return hostNow() }

// IsCancelled tells a long computation that nobody waits for it any more.
func IsCancelled() bool { return hostCancelled() != 0 }

// Log levels: 0 debug, 1 info, 2 warning, 3 error.
func Log(level uint32, text string) {
	hostLog(level, unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
	keep(text)
}

// Rows gathers rows of one kind of value; the zero value is empty. Quality is an OPC UA StatusCode; a time of 0 is now.
type Rows[T float64 | int64 | uint64 | bool] struct {
	tag     []uint32
	ts      []int64
	quality []uint32
	value   []T
}

// Add a row.
func (r *Rows[T]) Add(tag uint32, value T, quality uint32, ts int64) {
	r.tag, r.ts = append(r.tag, tag), append(r.ts, ts)
	r.quality, r.value = append(r.quality, quality), append(r.value, value)
}

// Emit hands the rows over, and is empty again.
func (r *Rows[T]) Emit() {
	if len(r.tag) == 0 {
		return
	}
	var column uint32
	switch any(r.value).(type) {
	case []int64:
		column = ints
	case []uint64:
		column = uints
	case []bool:
		column = bools
	}
	n := uint32(len(r.tag))
	hostEmit(unsafe.Pointer(&r.tag[0]), n, unsafe.Pointer(&r.ts[0]), n, unsafe.Pointer(&r.quality[0]), n,
		column, unsafe.Pointer(&r.value[0]), n)
	keep(r.tag, r.ts, r.quality, r.value)
	r.tag, r.ts, r.quality, r.value = r.tag[:0], r.ts[:0], r.quality[:0], r.value[:0]
}

// The gateway's contract (edge-driver/0.2) in Go: what a driver may ask for, and what it is asked. Nothing here is about
// your protocol; leave it as it is.
//
// Values cross by the Component Model's canonical ABI. Memory that the host fills through cabi_realloc stays referenced
// until the call that uses it has returned; results stay in memory that is used again by the next call.
package main

import (
	"encoding/json"
	"math"
	"unsafe"
)

// Errc is why something did not work: what the calls of Host return, and what Poll and Write may.
type Errc uint8

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
	Done Errc = 255 // it did work
)

// Quality is an OPC UA StatusCode.
type Quality uint32

const good Quality = 0

// Tag is one row of variables.yml, as Plan is told of it.
type Tag struct {
	ID      uint32                     `json:"id"`
	Name    string                     `json:"name"`
	Address string                     `json:"address"`
	Type    string                     `json:"type"`
	Access  string                     `json:"access"`
	Options map[string]json.RawMessage `json:"options"`
}

// TagProblem tells which tag cannot be read, and why.
type TagProblem struct {
	Tag  uint32 `json:"tag"`
	Key  string `json:"key"`
	Text string `json:"text"`
}

// Command is one value to be written. What it is, the tag's type says:
//
//	bool     bool
//	int64    int8 to int64, uint8 to uint32
//	uint64   uint64
//	float64  float32, float64
//	string   string
//	[]byte   bytes
type Command struct {
	Tag   uint32
	Value any
}

// Kinds of columns, as driver.wit numbers them.
const (
	reals = iota
	ints
	uints
	bools
	texts
	blobs
	kinds
)

//go:wasmimport edge:driver/host@0.2.0 send
func hostSend(channel uint32, data unsafe.Pointer, size uint32, result unsafe.Pointer)

//go:wasmimport edge:driver/host@0.2.0 recv
func hostRecv(channel, most, timeoutMs uint32, result unsafe.Pointer)

//go:wasmimport edge:driver/host@0.2.0 emit
func hostEmit(tag unsafe.Pointer, tags uint32, time unsafe.Pointer, times uint32, quality unsafe.Pointer, qualities uint32,
	kind uint32, value unsafe.Pointer, values uint32)

//go:wasmimport edge:driver/host@0.2.0 log
func hostLog(level uint32, text unsafe.Pointer, size uint32)

//go:wasmimport edge:driver/host@0.2.0 now-ns
func hostNow() int64

// Send hands bytes to the device.
func Send(channel uint32, data []byte) Errc {
	var result [2]uint8 // 0: done; 1: the error is behind it
	hostSend(channel, unsafe.Pointer(unsafe.SliceData(data)), uint32(len(data)), unsafe.Pointer(&result))
	if result[0] != 0 {
		return Errc(result[1])
	}
	return Done
}

// Receive returns at most so many bytes, as soon as there are any; none: the line has ended.
func Receive(channel, most, timeoutMs uint32) ([]byte, Errc) {
	var result struct {
		tag  uint8
		data uint32 // its address, which has 32 bits here; an error is its first byte
		size uint32
	}
	hostRecv(channel, most, timeoutMs, unsafe.Pointer(&result))
	if result.tag != 0 {
		return nil, Errc(uint8(result.data))
	}
	return filled(result.data, result.size), Done
}

// filled is what the host has put into memory that it asked for.
func filled(address, size uint32) []byte {
	for _, memory := range lent {
		if at := unsafe.Pointer(&memory[0]); size > 0 && uint32(uintptr(at)) == address {
			return unsafe.Slice((*byte)(at), size)
		}
	}
	return nil
}

// Rows are rows of one scan on their way to the gateway. The type of a tag says which call is for it; a value of another
// kind than its tag's becomes BadTypeMismatch. All rows are of now.
type Rows struct {
	columns [kinds]column
	count   uint32
}

type column struct {
	tags    []uint32
	quality []Quality
	cells   []uint64 // bits of a number, or address and size (above it) of a text or blob
	flags   []bool   // instead of them
}

// Bool is for tags of type bool.
func (r *Rows) Bool(tag uint32, value bool) {
	r.add(bools, tag, good, 0)
	r.columns[bools].flags = append(r.columns[bools].flags, value)
}

// Int is for tags of type int8, int16, int32, int64, uint8, uint16 and uint32.
func (r *Rows) Int(tag uint32, value int64) { r.add(ints, tag, good, uint64(value)) }

// Uint is for tags of type uint64.
func (r *Rows) Uint(tag uint32, value uint64) { r.add(uints, tag, good, value) }

// Real is for tags of type float32 and float64.
func (r *Rows) Real(tag uint32, value float64) { r.add(reals, tag, good, math.Float64bits(value)) }

// Text is for tags of type string; the value is UTF-8.
func (r *Rows) Text(tag uint32, value string) { r.add(texts, tag, good, keep([]byte(value))) }

// Blob is for tags of type bytes. The bytes are copied.
func (r *Rows) Blob(tag uint32, value []byte) {
	r.add(blobs, tag, good, keep(append([]byte{}, value...)))
}

// Bad says why there is no value, for tags of any type.
func (r *Rows) Bad(tag uint32, why Quality) { r.add(ints, tag, why, 0) }

func (r *Rows) add(kind int, tag uint32, quality Quality, cell uint64) {
	c := &r.columns[kind]
	c.tags, c.quality, c.cells = append(c.tags, tag), append(c.quality, quality), append(c.cells, cell)
	r.count++
}

// Emit hands the rows to the gateway and returns how many there were; then there are none.
func (r *Rows) Emit() uint32 {
	now, count := int64(0), r.count
	for kind, c := range r.columns {
		rows, values := uint32(len(c.tags)), unsafe.Pointer(unsafe.SliceData(c.cells))
		if rows == 0 {
			continue
		}
		if kind == bools {
			values = unsafe.Pointer(unsafe.SliceData(c.flags))
		}
		hostEmit(unsafe.Pointer(unsafe.SliceData(c.tags)), rows, unsafe.Pointer(&now), 1,
			unsafe.Pointer(unsafe.SliceData(c.quality)), rows, uint32(kind), values, rows)
	}
	*r, emitted = Rows{}, nil
	return count
}

// keep returns a text or blob as the host reads it: two numbers of 32 bits, not the header that Go has for it.
func keep(data []byte) uint64 {
	emitted = append(emitted, data)
	return uint64(uint32(uintptr(unsafe.Pointer(unsafe.SliceData(data))))) | uint64(len(data))<<32
}

// Log writes a line into the gateway's log. level: 0 debug .. 3 error.
func Log(level uint32, text string) {
	hostLog(level, unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
}

// NowNs is the time in nanoseconds UTC.
func NowNs() int64 { return hostNow() }

// -- what the gateway calls -------------------------------------------------------------------------------------------

var (
	driver  Driver
	lent    [][]uint64 // memory that the host has asked for in this call
	emitted [][]byte   // texts and blobs that the host has yet to read
	answer  [4]uint32  // the result of the last call
	nothing uint64     // what memory of no size is
)

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	if size == 0 {
		return unsafe.Pointer(&nothing)
	}
	memory := make([]uint64, (size+7)/8)
	lent = append(lent, memory)
	if old != nil {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&memory[0])), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return unsafe.Pointer(&memory[0])
}

var kept []byte // what the last result points to

func text(words string) (uint32, uint32) {
	kept = []byte(words)
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(kept)))), uint32(len(kept))
}

func refusal(problem string) unsafe.Pointer {
	lent = nil
	answer = [4]uint32{}
	if problem != "" {
		answer[0] = 1
		answer[1], answer[2] = text(problem)
	}
	return unsafe.Pointer(&answer)
}

//go:wasmexport edge:driver/guest@0.2.0#meta
func guestMeta() unsafe.Pointer {
	answer[0], answer[1] = text(meta)
	return unsafe.Pointer(&answer)
}

//go:wasmexport edge:driver/guest@0.2.0#create
func guestCreate(options unsafe.Pointer, size uint32) unsafe.Pointer {
	return refusal(driver.Create(unsafe.Slice((*byte)(options), size)))
}

//go:wasmexport edge:driver/guest@0.2.0#plan
func guestPlan(group uint32, tags unsafe.Pointer, size uint32) unsafe.Pointer {
	var rows []Tag
	if err := json.Unmarshal(unsafe.Slice((*byte)(tags), size), &rows); err != nil {
		return refusal(err.Error())
	}
	problems := driver.Plan(group, rows)
	if len(problems) == 0 {
		return refusal("")
	}
	told, _ := json.Marshal(problems)
	return refusal(string(told))
}

//go:wasmexport edge:driver/guest@0.2.0#connect
func guestConnect(channels uint32) unsafe.Pointer { return refusal(driver.Connect(channels)) }

//go:wasmexport edge:driver/guest@0.2.0#poll
func guestPoll(group, budgetMs uint32) unsafe.Pointer {
	rows, errc := driver.Poll(group, budgetMs)
	lent = nil
	answer = [4]uint32{0, rows}
	if errc != Done {
		answer = [4]uint32{1, uint32(errc)}
	}
	return unsafe.Pointer(&answer)
}

//go:wasmexport edge:driver/guest@0.2.0#write
func guestWrite(tag unsafe.Pointer, tags uint32, time unsafe.Pointer, times uint32, quality unsafe.Pointer, qualities uint32,
	kind uint32, value unsafe.Pointer, values uint32, budgetMs uint32) unsafe.Pointer {
	commands := make([]Command, tags)
	for row, id := range unsafe.Slice((*uint32)(tag), tags) {
		commands[row] = Command{id, valueAt(kind, value, row)}
	}
	statuses := make([]byte, 0, tags)
	for _, errc := range driver.Write(commands, budgetMs) {
		statuses = append(statuses, uint8(errc)+1) // Done, 255, becomes 0
	}
	lent = nil
	answer = [4]uint32{0}
	answer[1], answer[2] = text(string(statuses))
	return unsafe.Pointer(&answer)
}

// valueAt is the value in one row of a column.
func valueAt(kind uint32, values unsafe.Pointer, row int) any {
	if kind == bools {
		return *(*byte)(unsafe.Add(values, row)) != 0
	}
	cell := *(*uint64)(unsafe.Add(values, 8*row))
	switch kind {
	case reals:
		return math.Float64frombits(cell)
	case ints:
		return int64(cell)
	case texts:
		return string(filled(uint32(cell), uint32(cell>>32)))
	case blobs:
		return append([]byte{}, filled(uint32(cell), uint32(cell>>32))...)
	}
	return cell
}

//go:wasmexport edge:driver/guest@0.2.0#disconnect
func guestDisconnect() { driver.Disconnect() }

func main() {}

// Package edgeguest stands between contract/driver.wit and a driver that is plain Go: the canonical ABI of a core
// module, JSON, columns. A copy of it belongs to each driver.
//
// Values lie in linear memory: lists as (place, length), results behind a pointer. Whatever the host hands over was
// placed by cabi_realloc, and stays referenced here until the call that it belongs to returns.
package edgeguest

import (
	"encoding/binary"
	"encoding/json"
	"runtime"
	"unsafe"
)

//go:wasmimport edge:driver/host@0.2.0 send
func hostSend(channel uint32, data unsafe.Pointer, size uint32, result unsafe.Pointer)

//go:wasmimport edge:driver/host@0.2.0 recv
func hostRecv(channel, sizeMax, timeoutMS uint32, result unsafe.Pointer)

//go:wasmimport edge:driver/host@0.2.0 emit
func hostEmit(tag unsafe.Pointer, tags uint32, ts unsafe.Pointer, stamps uint32,
	quality unsafe.Pointer, qualities uint32, column uint32, value unsafe.Pointer, values uint32)

//go:wasmimport edge:driver/host@0.2.0 log
func hostLog(level uint32, text unsafe.Pointer, size uint32)

//go:wasmimport edge:driver/host@0.2.0 now-ns
func hostNow() int64

//go:wasmimport edge:driver/host@0.2.0 cancelled
func hostCancelled() uint32

var (
	driver Driver
	held   [][]uint64         // what cabi_realloc gave out in the call under way
	answer [16]byte           // of the export under way
	said   []byte             // what answer refers to
	tags   = map[uint32]Tag{} // every tag that was ever planned
)

// Serve names the driver; called in init or main, before the first call of the host.
func Serve(d Driver) { driver = d }

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	room := make([]uint64, size/8+1)
	if old != nil {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&room[0])), size), unsafe.Slice((*byte)(old), min(oldSize, size)))
	}
	held = append(held, room)
	return unsafe.Pointer(&room[0])
}

func bytesAt(place unsafe.Pointer, size uint32) []byte { return unsafe.Slice((*byte)(place), size) }

// at is a place in linear memory, which has 32 bits where Go's own pointers have 64.
func at(place uint32) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&[1]uintptr{uintptr(place)}))
}

// refer puts place and length of `said` into the answer.
func refer(offset int) {
	binary.LittleEndian.PutUint32(answer[offset:], uint32(uintptr(unsafe.Pointer(unsafe.SliceData(said)))))
	binary.LittleEndian.PutUint32(answer[offset+4:], uint32(len(said)))
}

// refused is result<_, string>.
func refused(err error) unsafe.Pointer {
	held = nil
	answer = [16]byte{}
	if err != nil {
		said = []byte(err.Error())
		if problems, ok := err.(Problems); ok {
			said, _ = json.Marshal(problems)
		}
		answer[0] = 1
		refer(4)
	}
	return unsafe.Pointer(&answer)
}

//go:wasmexport edge:driver/guest@0.2.0#meta
func meta() unsafe.Pointer {
	said, _ = json.Marshal(driver.Meta())
	refer(0)
	return unsafe.Pointer(&answer)
}

//go:wasmexport edge:driver/guest@0.2.0#create
func create(options unsafe.Pointer, size uint32) unsafe.Pointer {
	return refused(driver.Create(bytesAt(options, size)))
}

//go:wasmexport edge:driver/guest@0.2.0#plan
func plan(group uint32, text unsafe.Pointer, size uint32) unsafe.Pointer {
	var planned []Tag
	if err := json.Unmarshal(bytesAt(text, size), &planned); err != nil {
		return refused(err)
	}
	if err := driver.Plan(group, planned); err != nil {
		return refused(err)
	}
	for _, tag := range planned {
		tags[tag.ID] = tag
	}
	return refused(nil)
}

//go:wasmexport edge:driver/guest@0.2.0#connect
func connect(channels uint32) unsafe.Pointer { return refused(driver.Connect(channels)) }

//go:wasmexport edge:driver/guest@0.2.0#poll
func poll(group, budgetMS uint32) unsafe.Pointer { // result<u32, errc>
	err := driver.Poll(group, budgetMS)
	held = nil
	answer = [16]byte{}
	if err != nil {
		answer[0], answer[4] = 1, byte(errcOf(err))
	}
	return unsafe.Pointer(&answer)
}

//go:wasmexport edge:driver/guest@0.2.0#write
func write(tag unsafe.Pointer, count uint32, ts unsafe.Pointer, stamps uint32, quality unsafe.Pointer, qualities uint32,
	column uint32, value unsafe.Pointer, values, budgetMS uint32) unsafe.Pointer { // result<list<u8>, errc>
	said = make([]byte, 0, count)
	for row, id := range unsafe.Slice((*uint32)(tag), count) {
		status := byte(0)
		known, ok := tags[id]
		if !ok {
			status = 1 + byte(Invalid)
		} else if err := driver.Write(known, valueAt(column, value, row)); err != nil {
			status = 1 + byte(errcOf(err))
		}
		said = append(said, status)
	}
	held = nil
	answer = [16]byte{}
	refer(4)
	return unsafe.Pointer(&answer)
}

//go:wasmexport edge:driver/guest@0.2.0#disconnect
func disconnect() {
	driver.Disconnect()
	held = nil
}

// valueAt is one cell of a column: float64, int64, uint64, bool, string or []byte.
func valueAt(column uint32, cells unsafe.Pointer, row int) any {
	cell := func(size int) unsafe.Pointer { return unsafe.Add(cells, row*size) }
	switch column {
	case reals:
		return *(*float64)(cell(8))
	case ints:
		return *(*int64)(cell(8))
	case uints:
		return *(*uint64)(cell(8))
	case bools:
		return *(*byte)(cell(1)) != 0
	}
	slice := *(*[2]uint32)(cell(8))
	data := append([]byte(nil), bytesAt(at(slice[0]), slice[1])...)
	if column == texts {
		return string(data)
	}
	return data
}

func keep(values ...any) { runtime.KeepAlive(values) }

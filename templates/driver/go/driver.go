// The driver mydriver: registers over a line that the gateway opens. README.md describes the protocol.
//
// There is no loop, no reconnecting and no retry here: the gateway calls Poll once for each scan, and Connect again after
// every loss. One instance serves one device; calls on it never overlap.
package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"sort"
	"strconv"
)

const (
	read, write    = 1, 2
	noSuchRegister = 1
	headBytes      = 4
	countMax       = 120
	staleMax       = 16
	pointsMax      = 4096

	badNodeIDUnknown Quality = 0x80340000
	badDeviceFailure Quality = 0x808B0000
)

type point struct {
	id       uint32
	register uint32
	kind     string
	writable bool
}

func (p point) registers() uint32 {
	if p.kind == "uint16" || p.kind == "int16" {
		return 1
	}
	return 2
}

// Driver is one device.
type Driver struct {
	timeoutMs uint32
	sequence  uint8
	groups    map[uint32][]point
}

// Create takes the options of the device's row; no I/O. It returns what is wrong with them.
func (d *Driver) Create(options []byte) string {
	chosen := struct {
		TimeoutMs uint32 `json:"timeout_ms"`
	}{1000}
	if err := json.Unmarshal(options, &chosen); err != nil {
		return err.Error()
	}
	if chosen.TimeoutMs < 10 || chosen.TimeoutMs > 60000 {
		return "timeout_ms is not a whole number from 10 to 60000"
	}
	*d = Driver{timeoutMs: chosen.TimeoutMs, groups: map[uint32][]point{}}
	return ""
}

// Plan prepares the tags of one scan class; pure.
func (d *Driver) Plan(group uint32, tags []Tag) []TagProblem {
	var problems []TagProblem
	points := make([]point, 0, len(tags))
	for _, tag := range tags {
		p, key, why := pointOf(tag)
		if len(points) == pointsMax {
			key, why = "address", "at most 4096 tags in one scan class"
		}
		if why != "" {
			problems = append(problems, TagProblem{tag.ID, key, why})
			continue
		}
		points = append(points, p)
	}
	sort.Slice(points, func(i, j int) bool { return points[i].register < points[j].register })
	if problems == nil {
		d.groups[group] = points
	}
	return problems
}

func pointOf(tag Tag) (p point, key, why string) {
	p = point{id: tag.ID, kind: tag.Type, writable: tag.Access != "R"}
	switch tag.Type {
	case "uint16", "int16", "uint32", "int32", "float32":
	default:
		return p, "type", "the type is none of uint16, int16, uint32, int32, float32"
	}
	if p.writable && p.registers() > 1 {
		return p, "access", "only one register can be written at once: use R"
	}
	register, err := strconv.ParseUint(tag.Address, 10, 16)
	if err != nil || register+uint64(p.registers()) > 0x10000 {
		return p, "address", "the address is no register; write a number from 0 to 65535"
	}
	p.register = uint32(register)
	return p, "", ""
}

// Connect is called when the line stands, again after every loss. It returns why the device cannot be read.
func (d *Driver) Connect(channels uint32) string {
	if channels == 0 {
		return "no endpoint: name one in the device's row"
	}
	return ""
}

// Poll is one scan: a row for every tag of the group.
func (d *Driver) Poll(group, budgetMs uint32) (uint32, Errc) {
	points, endNs, count := d.groups[group], NowNs()+int64(budgetMs)*1e6, uint32(0)
	for from, to := 0, 0; from < len(points); from = to {
		// One request for each run of registers that touch: a gap may hold registers that the device does not have.
		first, end := points[from].register, points[from].register+points[from].registers()
		for to = from + 1; to < len(points) && points[to].register <= end; to++ {
			last := points[to].register + points[to].registers()
			if last-first > countMax {
				break
			}
			end = max(end, last)
		}
		status, data, errc := d.ask(read, first, end-first, endNs)
		if errc == NotSent {
			errc = Timeout
		}
		if errc == Done && status == 0 && uint32(len(data)) != 2*(end-first) {
			errc = Closed // as below: where an answer begins is lost
		}
		if errc != Done {
			return count, errc
		}
		rows := rowsOf(points[from:to], first, status, data)
		count += rows.Emit()
	}
	return count, Done
}

// rowsOf are the rows of one request that begins at register first.
func rowsOf(points []point, first uint32, status uint8, data []byte) (rows Rows) {
	for _, p := range points {
		switch status {
		case 0:
			addValue(&rows, p, data[2*(p.register-first):])
		case noSuchRegister:
			rows.Bad(p.id, badNodeIDUnknown)
		default:
			rows.Bad(p.id, badDeviceFailure)
		}
	}
	return rows
}

// addValue adds the value of a point's registers, which begin the data.
func addValue(rows *Rows, p point, data []byte) {
	switch p.kind {
	case "uint16":
		rows.Int(p.id, int64(binary.BigEndian.Uint16(data)))
	case "int16":
		rows.Int(p.id, int64(int16(binary.BigEndian.Uint16(data))))
	case "uint32":
		rows.Int(p.id, int64(binary.BigEndian.Uint32(data)))
	case "int32":
		rows.Int(p.id, int64(int32(binary.BigEndian.Uint32(data))))
	case "float32":
		rows.Real(p.id, float64(math.Float32frombits(binary.BigEndian.Uint32(data))))
	}
}

// Write writes values; one status for each, in order.
func (d *Driver) Write(commands []Command, budgetMs uint32) []Errc {
	endNs := NowNs() + int64(budgetMs)*1e6
	statuses := make([]Errc, len(commands))
	for row, command := range commands {
		statuses[row] = d.writeOne(command, endNs)
	}
	return statuses
}

func (d *Driver) writeOne(command Command, endNs int64) Errc {
	p, found := d.find(command.Tag)
	if !found || !p.writable {
		return Unsupported
	}
	low, high := int64(0), int64(math.MaxUint16)
	if p.kind == "int16" {
		low, high = math.MinInt16, math.MaxInt16
	}
	value, isInt := command.Value.(int64)
	if !isInt || value < low || value > high {
		return Invalid
	}
	status, _, errc := d.ask(write, p.register, uint32(uint16(value)), endNs)
	if errc == Done && status != 0 {
		return Refused
	}
	return errc
}

func (d *Driver) find(id uint32) (point, bool) {
	for _, points := range d.groups {
		for _, p := range points {
			if p.id == id {
				return p, true
			}
		}
	}
	return point{}, false
}

// Disconnect is called always after Connect, also after a failed one.
func (d *Driver) Disconnect() {}

// ask sends one request and waits for its answer: what the device says, and the data behind it.
func (d *Driver) ask(function uint8, first, argument uint32, endNs int64) (uint8, []byte, Errc) {
	limitMs := d.leftMs(endNs)
	if limitMs == 0 {
		return 0, nil, NotSent
	}
	deadlineNs := NowNs() + int64(limitMs)*1e6
	d.sequence++
	request := []byte{function, d.sequence, byte(first >> 8), byte(first), byte(argument >> 8), byte(argument)}
	if errc := Send(0, request); errc != Done {
		return 0, nil, errc
	}
	for stale := 0; stale < staleMax; stale++ {
		head, errc := d.receive(headBytes, deadlineNs)
		if errc != Done {
			return 0, nil, errc
		}
		if head[0] != read && head[0] != write {
			return 0, nil, Closed // where an answer begins is lost: a new line tells
		}
		data, errc := d.receive(uint32(head[3]), deadlineNs)
		if errc != Done {
			return 0, nil, errc
		}
		if head[0] == function && head[1] == d.sequence { // else: a late answer to an earlier request
			return head[2], data, Done
		}
	}
	return 0, nil, Closed
}

// receive returns exactly so many bytes.
func (d *Driver) receive(size uint32, deadlineNs int64) ([]byte, Errc) {
	got := make([]byte, 0, size)
	for uint32(len(got)) < size {
		waitMs := d.leftMs(deadlineNs)
		if waitMs == 0 {
			return nil, Timeout
		}
		data, errc := Receive(0, size-uint32(len(got)), waitMs)
		if errc != Done {
			return nil, errc
		}
		if len(data) == 0 {
			return nil, Closed
		}
		got = append(got, data...)
	}
	return got, Done
}

// leftMs is the time until then, at most the time-out of one answer.
func (d *Driver) leftMs(deadlineNs int64) uint32 {
	left := (deadlineNs - NowNs()) / 1e6
	return uint32(max(0, min(left, int64(d.timeoutMs))))
}

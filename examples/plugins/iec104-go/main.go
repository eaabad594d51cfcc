// A controlling station of IEC 60870-5-104 as a sandboxed driver: monitored points are read, commands are written.
//
// The gateway owns the connection and calls Poll at each scan. Between two scans the socket keeps what the station
// sends; a scan takes all of it, in order. What has come for a tag since its last scan is told with its own times,
// and a tag for which nothing came is told its last value again, unless a test of the link is due and not answered.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"iec104/edgeguest"
)

const (
	eventsMax        = 20_000 // of one group, between two scans; the oldest go first
	interrogationMax = 5 * time.Second
	margin           = 300 * time.Millisecond // of a poll's budget, left for telling rows
	linger           = 10 * time.Millisecond  // for what a station sends once its window is open again
)

type options struct {
	K               int     `json:"k"`
	W               int     `json:"w"`
	T1              float64 `json:"t1"`
	T2              float64 `json:"t2"`
	T3              float64 `json:"t3"`
	Originator      byte    `json:"originator"`
	InterrogationS  float64 `json:"interrogation_s"`
	CountersS       float64 `json:"counters_s"`
	UTCOffsetMinute int64   `json:"utc_offset_min"`
}

type event struct {
	tag int
	typ byte
	value
}

type monitored struct {
	tag   edgeguest.Tag
	place point
}

// group is one scan class. pending: what has come for its tags since they were told last.
type group struct {
	tags    []monitored
	pending []event
	lost    int
	isRead  bool
}

type listener struct {
	group uint32
	tag   int
}

type seen struct {
	typ byte
	value
}

type station struct {
	askedAt  time.Time
	ended    bool
	counters time.Time
}

type driver struct {
	options   options
	link      link
	groups    map[uint32]*group
	listeners map[point][]listener
	image     map[point]seen
	stations  map[uint16]*station
	waiting   *confirmation
}

func init() { edgeguest.Serve(&driver{}) }
func main() {}

func (d *driver) Meta() edgeguest.Meta { return edgeguest.Meta{Name: "iec104-go", Version: "1.1.0"} }

func (d *driver) Create(text []byte) error {
	o := options{K: 12, W: 8, T1: 15, T2: 10, T3: 20}
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	if o.K < 1 || o.K > 32767 || o.W < 1 || o.W > o.K {
		return errors.New("w must be 1 to k, and k 1 to 32767; w is two thirds of k as a rule")
	}
	if o.T1 <= 0 || o.T2 <= 0 || o.T2 >= o.T1 || o.T3 <= 0 {
		return errors.New("t1, t2 and t3 are seconds above 0, and t2 must be shorter than t1")
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	d.options = o
	d.link = link{k: o.K, w: o.W, t1: seconds(o.T1), t2: seconds(o.T2), t3: seconds(o.T3)}
	d.groups, d.listeners = map[uint32]*group{}, map[point][]listener{}
	d.image, d.stations = map[point]seen{}, map[uint16]*station{}
	return nil
}

func (d *driver) Plan(number uint32, tags []edgeguest.Tag) error {
	planned, problems := &group{}, edgeguest.Problems(nil)
	for _, tag := range tags {
		place, err := placeOf(tag.Address)
		if err != nil {
			problems = append(problems, edgeguest.Problem{Tag: tag.ID, Key: "address", Text: err.Error()})
			continue
		}
		if tag.Type == "string" || tag.Type == "bytes" {
			problems = append(problems, edgeguest.Problem{Tag: tag.ID, Key: "type", Text: "a point is bool or a number"})
		}
		if _, err := commandOf(tag, place); err != nil {
			problems = append(problems, edgeguest.Problem{Tag: tag.ID, Key: "command", Text: err.Error()})
		}
		planned.tags = append(planned.tags, monitored{tag, place})
	}
	if problems != nil {
		return problems
	}
	if before := d.groups[number]; before != nil {
		d.forget(number, before)
	}
	d.groups[number] = planned
	for index, each := range planned.tags {
		d.listeners[each.place] = append(d.listeners[each.place], listener{number, index})
	}
	return nil
}

func (d *driver) forget(number uint32, before *group) {
	for _, each := range before.tags {
		var left []listener
		for _, one := range d.listeners[each.place] {
			if one.group != number {
				left = append(left, one)
			}
		}
		d.listeners[each.place] = left
	}
}

// placeOf "47:11": common address and address of the information object.
func placeOf(address string) (point, error) {
	left, right, found := strings.Cut(address, ":")
	ca, errCA := strconv.ParseUint(left, 10, 16)
	ioa, errIOA := strconv.ParseUint(right, 10, 24)
	if !found || errCA != nil || errIOA != nil || ca == 0 {
		return point{}, fmt.Errorf("%q is no address; write common address and object address, such as 47:11", address)
	}
	return point{uint16(ca), uint32(ioa)}, nil
}

func (d *driver) Connect(channels uint32) error {
	if channels != 1 {
		return errors.New("an endpoint is needed: `endpoint: NAME` in the row of drivers.yml")
	}
	d.link.reset()
	d.stations, d.waiting = map[uint16]*station{}, nil
	if err := d.link.sendU(startDTAct); err != nil {
		return err
	}
	deadline := time.Now().Add(d.link.t1)
	for !d.link.isStarted {
		left := time.Until(deadline)
		if left <= 0 || edgeguest.IsCancelled() {
			return errors.New("the station did not confirm STARTDT")
		}
		if _, err := d.link.take(min(left, time.Second), d.asdu); err != nil {
			return fmt.Errorf("the station did not confirm STARTDT: %w", err)
		}
	}
	return nil
}

func (d *driver) Poll(number, budgetMS uint32) error {
	g := d.groups[number]
	if g == nil {
		return edgeguest.Invalid
	}
	g.isRead = true
	deadline := time.Now().Add(time.Duration(budgetMS)*time.Millisecond - margin)
	err := d.receive(g, deadline)
	if err == nil {
		err = d.link.sendS()
	}
	if g.lost > 0 {
		edgeguest.Log(2, fmt.Sprintf("%d events were lost: more came between two scans than are kept", g.lost))
		g.lost = 0
	}
	d.tell(g, err == nil)
	return err
}

func (d *driver) receive(g *group, deadline time.Time) error {
	if err := d.interrogate(g); err != nil {
		return err
	}
	d.link.framesTaken = 0
	wait, isTested := time.Duration(0), false
	for d.link.framesTaken < framesMax && time.Now().Before(deadline) {
		isAnswering := d.isInterrogating(g) || d.link.isTesting()
		if isAnswering {
			wait = min(time.Second, time.Until(deadline))
		}
		came, err := d.link.take(wait, d.asdu)
		switch {
		case err != nil:
			return err
		case came:
			wait = linger
		case !isAnswering && !d.link.isTesting():
			return nil
		}
		if isTested && !d.link.isTesting() && !d.isInterrogating(g) {
			return nil // the test that this scan has begun was answered: whatever comes now is for the next one
		}
		isTested = isTested || d.link.isTesting()
	}
	if d.link.isTesting() {
		return edgeguest.Timeout // nobody vouches for the last values
	}
	return nil
}

// interrogate every station of a group that was not asked yet, or not for so long.
func (d *driver) interrogate(g *group) error {
	now := time.Now()
	due := func(last time.Time, period float64) bool {
		return last.IsZero() || period > 0 && now.Sub(last).Seconds() >= period
	}
	for _, each := range g.tags {
		known := d.stations[each.place.station]
		if known == nil {
			known = &station{}
			d.stations[each.place.station] = known
		}
		if due(known.askedAt, d.options.InterrogationS) {
			known.askedAt, known.ended = now, false
			if err := d.link.sendI(d.command(cIC, each.place.station, 0, []byte{qoiStation})); err != nil {
				return err
			}
		}
		if d.options.CountersS > 0 && due(known.counters, d.options.CountersS) {
			known.counters = now
			if err := d.link.sendI(d.command(cCI, each.place.station, 0, []byte{qccGeneral})); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *driver) isInterrogating(g *group) bool {
	for _, each := range g.tags {
		if known := d.stations[each.place.station]; known != nil && !known.ended {
			if time.Since(known.askedAt) < interrogationMax {
				return true
			}
			known.ended = true
			edgeguest.Log(2, fmt.Sprintf("station %d did not end its interrogation", each.place.station))
		}
	}
	return false
}

// asdu takes one message of the station.
func (d *driver) asdu(data []byte) {
	if len(data) < headBytes {
		edgeguest.Log(2, "an ASDU without a head")
		return
	}
	cause, isNegative := data[2]&0x3F, data[2]&0x40 != 0
	if data[0] >= cSC && data[0] <= cCI {
		d.answered(data, cause, isNegative)
		return
	}
	now := edgeguest.NowNS()
	offset := d.options.UTCOffsetMinute * int64(time.Minute)
	if !objects(data, now, offset, d.heard) {
		edgeguest.Log(2, fmt.Sprintf("an ASDU of type %d whose length does not fit", data[0]))
	}
}

func (d *driver) heard(place point, typ byte, heard value) {
	if heard.ts == 0 {
		heard.ts = edgeguest.NowNS()
	}
	d.image[place] = seen{typ, heard}
	for _, each := range d.listeners[place] {
		g := d.groups[each.group]
		if !g.isRead {
			continue
		}
		if len(g.pending) >= eventsMax {
			g.pending = g.pending[1:]
			g.lost++
		}
		g.pending = append(g.pending, event{each.tag, typ, heard})
	}
}

// tell what has come; isWhole: and the last value of every other tag. What came before the last value of a tag goes
// first, so that the last ones are the same tags in the same order in every scan: the gateway knows such columns again.
func (d *driver) tell(g *group, isWhole bool) {
	var earlier, told rows
	last := make([]*event, len(g.tags))
	for index := range g.pending {
		each := &g.pending[index]
		if before := last[each.tag]; before != nil {
			earlier.add(g.tags[each.tag].tag, before.typ, before.value)
		}
		last[each.tag] = each
	}
	earlier.emit()
	for index, each := range g.tags {
		if newest := last[index]; newest != nil {
			told.add(each.tag, newest.typ, newest.value)
		} else if isWhole {
			known, ok := d.image[each.place]
			if !ok {
				known.quality = qualityWaiting
			}
			told.add(each.tag, known.typ, known.value)
		}
	}
	told.emit()
	g.pending = g.pending[:0]
}

func (d *driver) Disconnect() { _ = d.link.sendU(stopDTAct) }

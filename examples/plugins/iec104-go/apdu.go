package main

import (
	"iec104/edgeguest"
	"time"
)

// Frames of IEC 60870-5-104: start byte, length, four bytes of control field, and the ASDU of an I frame.
//
// Source: IEC 60870-5-104:2006, clause 5 (control field, windows k and w, time-outs t1, t2, t3).
const (
	startByte      = 0x68
	lengthMin      = 4
	lengthMax      = 253
	startDTAct     = 0x07
	startDTCon     = 0x0B
	stopDTAct      = 0x13
	testFRAct      = 0x43
	testFRCon      = 0x83
	sequenceModulo = 1 << 15
	recvBytes      = 4096
	framesMax      = 10_000 // taken in one poll; a device that says more is asked again
)

// link is one connection: sequence numbers, windows, timers. The device's numbers are checked, ours follow.
type link struct {
	k, w       int
	t1, t2, t3 time.Duration

	buffer      []byte
	sent        int // V(S): number of the next I frame that we send
	confirmed   int // ours up to here, the device has acknowledged
	received    int // V(R): number of the next I frame that we expect
	told        int // theirs up to here, we have acknowledged
	sentAt      time.Time
	receivedAt  time.Time // of the first one that is not acknowledged yet
	heardAt     time.Time
	testAt      time.Time // when we asked whether it lives; zero: we do not wait
	isStarted   bool
	framesTaken int
}

func between(from, to int) int { return (to - from + sequenceModulo) % sequenceModulo }

func (l *link) reset() {
	*l = link{k: l.k, w: l.w, t1: l.t1, t2: l.t2, t3: l.t3, heardAt: time.Now()}
}

// isTesting: we have asked whether the station lives, and wait for a sign of it.
func (l *link) isTesting() bool { return !l.testAt.IsZero() }

func (l *link) sendU(control byte) error {
	return edgeguest.Send(0, []byte{startByte, lengthMin, control, 0, 0, 0})
}

func (l *link) sendS() error {
	if l.told == l.received {
		return nil
	}
	l.told = l.received
	return edgeguest.Send(0, []byte{startByte, lengthMin, 1, 0, byte(l.received << 1), byte(l.received >> 7)})
}

// sendI sends an ASDU; Busy where the device has not acknowledged k of them: none of it has left then.
func (l *link) sendI(asdu []byte) error {
	if between(l.confirmed, l.sent) >= l.k {
		return edgeguest.Busy
	}
	frame := append([]byte{
		startByte, byte(lengthMin + len(asdu)),
		byte(l.sent << 1), byte(l.sent >> 7), byte(l.received << 1), byte(l.received >> 7),
	}, asdu...)
	if err := edgeguest.Send(0, frame); err != nil {
		return err
	}
	if l.confirmed == l.sent {
		l.sentAt = time.Now()
	}
	l.sent = (l.sent + 1) % sequenceModulo
	l.told = l.received
	return nil
}

// take waits for bytes so long, and hands every ASDU among them to `each`. Closed: the device broke the rules, or is gone.
func (l *link) take(wait time.Duration, each func(asdu []byte)) (bool, error) {
	data, err := edgeguest.Recv(0, recvBytes, uint32(max(0, wait.Milliseconds())))
	if err == edgeguest.Timeout {
		return false, l.mind(time.Now())
	}
	if err != nil {
		return false, err
	}
	now := time.Now()
	l.buffer = append(l.buffer, data...)
	for len(l.buffer) >= 2 {
		length := int(l.buffer[1])
		if l.buffer[0] != startByte || length < lengthMin || length > lengthMax {
			edgeguest.Log(2, "bytes that are no APDU")
			return true, edgeguest.Closed
		}
		if len(l.buffer) < 2+length {
			break
		}
		frame := l.buffer[2 : 2+length]
		l.buffer = l.buffer[2+length:]
		l.framesTaken++
		l.heardAt, l.testAt = now, time.Time{}
		if err := l.frame(frame, each); err != nil {
			return true, err
		}
	}
	return true, l.mind(now)
}

func (l *link) frame(frame []byte, each func(asdu []byte)) error {
	switch {
	case frame[0]&1 == 0: // I
		number := int(frame[0])>>1 | int(frame[1])<<7
		if number != l.received {
			edgeguest.Log(2, "an I frame out of sequence")
			return edgeguest.Closed
		}
		if l.told == l.received {
			l.receivedAt = time.Now()
		}
		l.received = (l.received + 1) % sequenceModulo
		if err := l.acknowledged(frame); err != nil {
			return err
		}
		each(frame[lengthMin:])
		if between(l.told, l.received) >= l.w {
			return l.sendS()
		}
		return nil
	case frame[0]&3 == 1: // S
		return l.acknowledged(frame)
	}
	switch frame[0] { // U
	case startDTCon:
		l.isStarted = true
	case testFRAct:
		return l.sendU(testFRCon)
	case testFRCon:
	default:
		edgeguest.Log(2, "a U frame that a controlled station does not send")
	}
	return nil
}

func (l *link) acknowledged(frame []byte) error {
	number := int(frame[2])>>1 | int(frame[3])<<7
	if between(l.confirmed, number) > between(l.confirmed, l.sent) {
		edgeguest.Log(2, "it acknowledges what was not sent")
		return edgeguest.Closed
	}
	if number != l.confirmed {
		l.confirmed, l.sentAt = number, time.Now()
	}
	return nil
}

// mind the timers: acknowledge after t2, ask after t3, give up after t1.
func (l *link) mind(now time.Time) error {
	if l.told != l.received && now.Sub(l.receivedAt) >= l.t2 {
		if err := l.sendS(); err != nil {
			return err
		}
	}
	if l.confirmed != l.sent && now.Sub(l.sentAt) >= l.t1 || l.isTesting() && now.Sub(l.testAt) >= l.t1 {
		edgeguest.Log(2, "no acknowledgement within t1")
		return edgeguest.Closed
	}
	if !l.isTesting() && now.Sub(l.heardAt) >= l.t3 {
		l.testAt = now
		return l.sendU(testFRAct)
	}
	return nil
}

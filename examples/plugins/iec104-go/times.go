package main

import (
	"encoding/binary"
	"time"
)

// Times of IEC 60870-5-101, 7.2.6.18 (CP56Time2a) and 7.2.6.19 (CP24Time2a). 0: the device calls it invalid.

const hourNS = int64(time.Hour)

// cp56At is ns UTC; offsetNS: what the device's clock is ahead of UTC.
func cp56At(data []byte, offsetNS int64) int64 {
	if data[2]&0x80 != 0 { // IV
		return 0
	}
	milliseconds := int(binary.LittleEndian.Uint16(data))
	minute, hour, day := int(data[2]&0x3F), int(data[3]&0x1F), int(data[4]&0x1F)
	month, year := int(data[5]&0x0F), 2000+int(data[6]&0x7F)
	if milliseconds > 59_999 || minute > 59 || hour > 23 || day < 1 || month < 1 || month > 12 {
		return 0
	}
	at := time.Date(year, time.Month(month), day, hour, minute, 0, milliseconds*1e6, time.UTC)
	return at.UnixNano() - offsetNS
}

// cp24At knows minute and millisecond only: the hour is the one that lies nearest to now.
func cp24At(data []byte, nowNS int64) int64 {
	if data[2]&0x80 != 0 { // IV
		return 0
	}
	milliseconds, minute := int64(binary.LittleEndian.Uint16(data)), int64(data[2]&0x3F)
	if milliseconds > 59_999 || minute > 59 {
		return 0
	}
	at := nowNS - nowNS%hourNS + minute*int64(time.Minute) + milliseconds*1e6
	if at > nowNS+hourNS/2 {
		return at - hourNS
	}
	if at < nowNS-hourNS/2 {
		return at + hourNS
	}
	return at
}

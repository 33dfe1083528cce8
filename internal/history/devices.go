package history

import (
	"math"
	"slices"
	"time"
)

// Devices holds the places up to which the devices of one user have acknowledged the messages of a
// Log. A device has a name, and any number of connections. Not safe for concurrent use.
type Devices struct {
	most int
	list []device
}

// device is one device of the user.
type device struct {
	name        string
	ack         uint64 // offset of the last acknowledged message
	connections int
	seen        time.Duration // time of the last Join, Leave or Ack
}

// NewDevices returns an empty table for that many devices.
func NewDevices(most int) Devices { return Devices{most: most} }

// Len returns the number of known devices.
func (d *Devices) Len() int { return len(d.list) }

// Bytes returns the memory of the table.
func (d *Devices) Bytes() (sum int64) {
	for i := range d.list {
		sum += int64(len(d.list[i].name))
	}
	return sum + int64(cap(d.list))*deviceBytes
}

// deviceBytes is the memory of a device beside its name.
const deviceBytes = 40

// Acked returns the offset up to which the device has acknowledged. known is false for a device
// that is not in the table.
func (d *Devices) Acked(name string) (offset uint64, known bool) {
	if i := d.find(name); i >= 0 {
		return d.list[i].ack, true
	}
	return 0, false
}

// Takes reports whether Join has a place for the device: it is known, the table is not full, or one
// of the devices has no connection.
func (d *Devices) Takes(name string) bool {
	return len(d.list) < d.most || d.find(name) >= 0 || d.oldest() >= 0
}

// Join counts a connection of the device. A device that is new to the table has acknowledged up to
// the given offset. In a full table it takes the place of the device without a connection that was
// not seen for the longest time. Join has no effect if Takes returns false.
func (d *Devices) Join(name string, ack uint64, now time.Duration) {
	i := d.find(name)
	switch {
	case i >= 0:
	case len(d.list) < d.most:
		i = len(d.list)
		d.list = append(d.list, device{name: name, ack: ack})
	default:
		if i = d.oldest(); i < 0 {
			return
		}
		d.list[i] = device{name: name, ack: ack}
	}
	d.list[i].connections++
	d.list[i].seen = now
}

// Leave is the reverse of Join.
func (d *Devices) Leave(name string, now time.Duration) {
	if i := d.find(name); i >= 0 {
		d.list[i].connections--
		d.list[i].seen = now
	}
}

// Ack notes that the device has acknowledged the messages up to the offset, and reports whether
// that is more than before.
func (d *Devices) Ack(name string, offset uint64, now time.Duration) (more bool) {
	i := d.find(name)
	if i < 0 {
		return false
	}
	e := &d.list[i]
	e.seen = now
	more = offset > e.ack
	e.ack = max(e.ack, offset)
	return more
}

// Least returns the offset up to which all devices have acknowledged. known is false if there is no
// device.
func (d *Devices) Least() (offset uint64, known bool) {
	if len(d.list) == 0 {
		return 0, false
	}
	offset = math.MaxUint64
	for i := range d.list {
		offset = min(offset, d.list[i].ack)
	}
	return offset, true
}

// Forget removes the devices without a connection that were last seen at that time or before.
func (d *Devices) Forget(before time.Duration) {
	d.list = slices.DeleteFunc(d.list, func(e device) bool { return e.connections == 0 && e.seen <= before })
	if len(d.list) == 0 {
		d.list = nil
	}
}

func (d *Devices) find(name string) int {
	return slices.IndexFunc(d.list, func(e device) bool { return e.name == name })
}

// oldest returns the place of the device without a connection that was not seen for the longest
// time, -1 if all are connected.
func (d *Devices) oldest() int {
	oldest := -1
	for i := range d.list {
		if d.list[i].connections == 0 && (oldest < 0 || d.list[i].seen < d.list[oldest].seen) {
			oldest = i
		}
	}
	return oldest
}

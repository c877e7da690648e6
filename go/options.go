// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"io/fs"
	"syscall"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// Layout is how the bytes of a segment are laid out.
type Layout uint32

const (
	// DefaultLayout is what the constructor makes without [WithLayout]: [Libpod] of NewSHMLockManager, as libpod's does, and
	// [Native] of OpenOrNewSHMLockManager, which takes what is there, whichever it is.
	DefaultLayout Layout = 0
	// Libpod is Podman's own layout, for programs that live beside Podman on one segment. The number of locks is fixed,
	// locks belong to goroutines only, cycles of waiters are not found, and a removal is noticed late.
	Libpod Layout = 1
	// Native is the library's own layout: it grows while others work, finds cycles of goroutines and processes that wait
	// for each other, frees what a holder leaves however it ended, and tells a removal to every call.
	Native Layout = 2
)

// Option says how a manager is to be made or opened. One that has no meaning for a constructor is EINVAL there.
type Option func(*options)

type options struct {
	shm      clib.SHMOptions
	given    optionSet
	mode     fs.FileMode
	owner    clib.Owner
	readOnly bool
}

// optionSet tells which options were given.
type optionSet uint

const (
	forNewSegments optionSet = 1 << iota
	forOwnership
	forReading
)

// WithLayout chooses the layout of a new segment; without it, [DefaultLayout]. A segment that exists in the other layout is
// EPROTO.
func WithLayout(layout Layout) Option {
	return func(o *options) { o.shm.Layout, o.given = uint32(layout), o.given|forNewSegments }
}

// WithMaxLocks says how far a new segment may grow; without it, to 1,048,576 locks or the number it is made with,
// whichever is larger. What is not used costs nothing, and address space once the segment grows. EINVAL in the libpod
// layout, which cannot grow.
func WithMaxLocks(most uint32) Option {
	return func(o *options) { o.shm.MaxLocks, o.given = most, o.given|forNewSegments }
}

// WithMode gives a new segment those permission bits, to which the umask does not apply; without it, 0600.
func WithMode(mode fs.FileMode) Option {
	return func(o *options) { o.mode, o.given = mode, o.given|forNewSegments }
}

// WithProcessOwnership lets any goroutine unlock what another has locked: locks belong to the process, and goroutines
// are not pinned. EOPNOTSUPP in the libpod layout.
func WithProcessOwnership() Option {
	return func(o *options) { o.owner, o.given = clib.Process, o.given|forOwnership }
}

// WithReadOnly opens a segment to look at it, whoever owns it if permissions allow: what would change something is
// EACCES.
func WithReadOnly() Option {
	return func(o *options) { o.readOnly, o.given = true, o.given|forReading }
}

func chosen(op string, given []Option, allowed optionSet) (options, error) {
	o := options{owner: clib.Thread}
	for _, option := range given {
		option(&o)
	}
	if o.given&^allowed != 0 {
		return o, invalid(op, "an option was given that this constructor has no use for")
	}
	if o.mode&^fs.ModePerm != 0 {
		return o, invalid(op, "the mode has bits beyond 0777")
	}
	o.shm.Mode = uint32(o.mode)
	return o, nil
}

// fitLayout refuses what the layout cannot do before a segment is made that the caller did not mean.
func (o options) fitLayout(op string) error {
	switch {
	case o.shm.Layout != uint32(Libpod):
		return nil
	case o.owner == clib.Process:
		return &Error{Op: op, Errno: syscall.EOPNOTSUPP, text: "locks of the libpod layout belong to threads; choose WithLayout(Native) for locks of the process"}
	case o.shm.MaxLocks != 0:
		return invalid(op, "the libpod layout cannot grow; choose WithLayout(Native), or leave WithMaxLocks out")
	}
	return nil
}

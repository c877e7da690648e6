// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"io/fs"
	"syscall"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// Layout is the layout of a segment.
type Layout uint32

const (
	// DefaultLayout is the layout without [WithLayout]. NewSHMLockManager then creates [Libpod], as libpod does.
	// OpenOrNewSHMLockManager creates [Native], and accepts an existing segment of either layout.
	DefaultLayout Layout = 0
	// Libpod is Podman's own layout, for programs that share a segment with Podman. The number of locks is fixed, locks
	// belong to goroutines only, cycles of waiters are not found, and a removal is noticed late.
	Libpod Layout = 1
	// Native is the library's own layout. It grows while others use it, finds cycles of goroutines and processes that wait
	// for each other, frees the locks of a holder however it ended, and reports a removal to every call.
	Native Layout = 2
)

// Option is an option of a constructor. A constructor that has no use for the option returns EINVAL.
type Option func(*options)

type options struct {
	shm      clib.SHMOptions
	given    optionSet
	mode     fs.FileMode
	owner    clib.Owner
	readOnly bool
	etcd     clib.EtcdOptions
}

// optionSet says which options were given.
type optionSet uint

const (
	forNewSegments optionSet = 1 << iota
	forOwnership
	forReading
	forEtcd
)

// WithLayout sets the layout of a new segment. The default is [DefaultLayout]. If the segment exists in the other layout, the
// constructor returns EPROTO.
func WithLayout(layout Layout) Option {
	return func(o *options) { o.shm.Layout, o.given = uint32(layout), o.given|forNewSegments }
}

// WithMaxLocks sets the number of locks that a new segment may grow to. The default is 1,048,576, or the first number of locks
// if that is more. Unused locks cost nothing until the segment grows, and then address space. In the libpod layout, which
// cannot grow, the constructor returns EINVAL.
func WithMaxLocks(most uint32) Option {
	return func(o *options) { o.shm.MaxLocks, o.given = most, o.given|forNewSegments }
}

// WithMode sets the permission bits of a new segment. The umask does not apply. The default is 0600.
func WithMode(mode fs.FileMode) Option {
	return func(o *options) { o.mode, o.given = mode, o.given|forNewSegments }
}

// WithProcessOwnership makes locks belong to the process: any goroutine may unlock what another has locked, and goroutines are
// not pinned. In the libpod layout, the constructor returns EOPNOTSUPP.
func WithProcessOwnership() Option {
	return func(o *options) { o.owner, o.given = clib.Process, o.given|forOwnership }
}

// WithReadOnly opens a segment read only, whoever owns it, if permissions allow. Calls that would change something then return
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
		return o, invalid(op, "this constructor has no use for one of its options; leave that option out")
	}
	if o.mode&^fs.ModePerm != 0 {
		return o, invalid(op, "the mode has bits beyond 0777; use permission bits alone")
	}
	o.shm.Mode = uint32(o.mode)
	return o, nil
}

// fitLayout refuses what the layout cannot do, before a segment is created that the caller did not want.
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

// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"errors"
	"syscall"
	"testing"
)

// More than the slot of a lock and than the first question has room for.
func TestHoldersNamesEveryReader(t *testing.T) {
	const readers = 40
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		reads := map[int]bool{}
		var leave []func()
		for i := 0; i < readers; i++ {
			leave = append(leave, heldElsewhere(t, func() error {
				err := l.RLockErr()
				reads[syscall.Gettid()] = true
				return err
			}, l.RUnlockErr))
		}
		if info := infoOf(t, l); info.Readers != readers {
			t.Errorf("%+v of a lock that %d read", info, readers)
		}
		holders, err := l.Holders()
		must(t, err)
		for _, h := range holders {
			if !h.Shared || h.ProcessOwned || h.PID != syscall.Getpid() || !reads[h.TID] {
				t.Errorf("%+v is none of the readers, or is named twice", h)
			}
			delete(reads, h.TID)
		}
		if len(reads) != 0 {
			t.Errorf("of %d readers these threads are not named: %v", readers, reads)
		}
		for _, leave := range leave {
			leave()
		}
		if holders, err := l.Holders(); err != nil || holders != nil {
			t.Errorf("%+v, %v hold what nobody holds", holders, err)
		}
	})
}

func TestHoldersNamesTheWriter(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		defer l.Unlock()
		holders, err := l.Holders()
		must(t, err)
		if len(holders) != 1 || holders[0].Shared || holders[0].PID != syscall.Getpid() || holders[0].TID != syscall.Gettid() {
			t.Fatalf("%+v of a lock that thread %d holds", holders, syscall.Gettid())
		}
	})
}

// No way to hold a lock shared is there for those who live beside Podman; what they hold exclusively they keep.
func TestTheLibpodLayoutKnowsNoReaders(t *testing.T) {
	m, _ := libpod.fresh(t)
	l := allocated(t, m)
	elsewhere(t, func() {
		refused := func() {
			for name, call := range map[string]func() error{
				"RLockErr":     l.RLockErr,
				"RLock":        func() error { return recovered(l.RLock) },
				"RLockContext": func() error { return l.RLockContext(lastingContext(t)) },
				"TryRLock":     func() error { return errorOf(l.TryRLock()) },
				"RUnlockErr":   l.RUnlockErr,
				"RUnlock":      func() error { return recovered(l.RUnlock) },
				"Downgrade":    l.Downgrade,
				"Holders":      func() error { return errorOf(l.Holders()) },
			} {
				if err := call(); !errors.Is(err, syscall.EOPNOTSUPP) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		refused()
		if pinned() {
			t.Error("pinned, though it holds nothing")
		}
		l.Lock()
		refused()
		if !pinned() {
			t.Error("a refusal has unpinned the holder")
		}
		l.Unlock()
	})
}

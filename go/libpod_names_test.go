// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// libpodMagic begins every segment of Podman's, in the order of the machine's bytes.
const libpodMagic = 0x87D1

func TestLibpodsNameMakesLibpodsLayoutUnlessAnotherIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		opts []lockmanager.Option
		want lockmanager.Layout
	}{
		"no option":      {nil, lockmanager.Libpod},
		"default layout": {[]lockmanager.Option{lockmanager.WithLayout(lockmanager.DefaultLayout)}, lockmanager.Libpod},
		"a mode":         {[]lockmanager.Option{lockmanager.WithMode(0o640)}, lockmanager.Libpod},
		"native":         {[]lockmanager.Option{lockmanager.WithLayout(lockmanager.Native)}, lockmanager.Native},
	} {
		path := newSHMName(t)
		m, err := lockmanager.NewSHMLockManager(path, 2048, c.opts...)
		must(t, err)
		info, err := m.(*lockmanager.SHMLockManager).Info()
		must(t, err)
		if info.Layout != c.want || info.NumLocks != 2048 {
			t.Errorf("%s: %+v", name, info)
		}
		bytes, err := os.ReadFile(filepath.Join("/dev/shm", path))
		must(t, err)
		if magic := *(*uint16)(unsafe.Pointer(&bytes[0])); (magic == libpodMagic) != (c.want == lockmanager.Libpod) {
			t.Errorf("%s: the segment begins with %#x", name, magic)
		}
	}
}

func TestLibpodsNameOpensEitherLayout(t *testing.T) {
	for _, s := range []storage{libpod, native} {
		_, path := s.fresh(t)
		m, err := lockmanager.OpenSHMLockManager(path, 64)
		must(t, err)
		pass(allocated(t, m))
	}
}

func TestLibpodsNameOpensNoSegmentOfZeroLocks(t *testing.T) {
	_, there := libpod.fresh(t)
	for _, path := range []string{there, newSHMName(t)} {
		m, err := lockmanager.OpenSHMLockManager(path, 0)
		if wantError(t, err, syscall.EINVAL); m != nil {
			t.Errorf("a manager beside an error: %v", m)
		}
		_, err = lockmanager.NewSHMLockManager(newSHMName(t), 0)
		wantError(t, err, syscall.EINVAL)
	}
	_, err := lockmanager.OpenOrNewSHMLockManager(there, 0)
	must(t, err)
	_, err = lockmanager.OpenOrNewSHMLockManager(newSHMName(t), 0)
	wantError(t, err, syscall.EINVAL)
}

// What the libpod layout cannot do is refused before there is a segment that nobody has meant.
func TestAnOptionThatTheLayoutCannotHaveLeavesNoSegment(t *testing.T) {
	named := lockmanager.WithLayout(lockmanager.Libpod)
	for _, c := range []struct {
		option lockmanager.Option
		want   error
	}{
		{lockmanager.WithProcessOwnership(), syscall.EOPNOTSUPP},
		{lockmanager.WithMaxLocks(4096), syscall.EINVAL},
	} {
		path := newSHMName(t)
		_, err := lockmanager.NewSHMLockManager(path, 64, c.option)
		wantError(t, err, c.want)
		if !strings.Contains(err.Error(), "WithLayout(Native)") {
			t.Errorf("the way out is not told: %v", err)
		}
		_, err = lockmanager.OpenOrNewSHMLockManager(path, 64, c.option, named)
		wantError(t, err, c.want)
		if _, err := os.Stat(filepath.Join("/dev/shm", path)); err == nil {
			t.Errorf("%v has left a segment behind", c.want)
		}
	}
}

func TestLibpodsNameMakesTheDirectoriesAbove(t *testing.T) {
	top := filepath.Join(t.TempDir(), "a")
	defer syscall.Umask(syscall.Umask(0o022))
	// A slash at the end names no other directory.
	m, err := lockmanager.NewFileLockManager(top+"/b/locks/", lockmanager.WithProcessOwnership())
	must(t, err)
	pass(allocated(t, m))
	for _, made := range []string{top, top + "/b"} {
		info, err := os.Stat(made)
		must(t, err)
		if info.Mode() != fs.ModeDir|0o711 {
			t.Errorf("%s has mode %v, libpod's have 0711", made, info.Mode())
		}
	}
	_, err = lockmanager.OpenFileLockManager(top + "/b/locks")
	must(t, err)
	_, err = lockmanager.OpenOrNewFileLockManager(top + "/c/locks")
	wantError(t, err, fs.ErrNotExist)
	// Below a file nothing can be made.
	must(t, os.WriteFile(top+"/file", nil, 0o600))
	_, err = lockmanager.NewFileLockManager(top + "/file/b/locks")
	wantError(t, err, syscall.ENOTDIR)
}

func TestLibpodsNameMakesNoLocksOfADirectoryThatExists(t *testing.T) {
	top := t.TempDir()
	must(t, os.Mkdir(top+"/empty", 0o700))
	must(t, os.WriteFile(top+"/file", nil, 0o600))
	must(t, os.Symlink("nowhere", top+"/link"))
	for _, name := range []string{"/empty", "/empty/", "/file", "/link"} {
		_, err := lockmanager.NewFileLockManager(top + name)
		wantError(t, err, fs.ErrExist)
		if !strings.Contains(err.Error(), top+name) {
			t.Errorf("%s is not named: %v", top+name, err)
		}
	}
	_, err := lockmanager.OpenOrNewFileLockManager(top + "/empty")
	must(t, err)
}

func TestWhereNothingIsHeldLocksHeldIsNil(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		if held, err := m.LocksHeld(); held != nil || err != nil {
			t.Fatalf("%#v, %v", held, err)
		}
	})
}

// libpod's file locks make the file of a freed number again, which allocates it.
func TestLockingAFreedNumberDoesNotAllocateIt(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		must(t, l.Free())
		l.Lock()
		defer l.Unlock()
		if info, err := l.Info(); err != nil || info.Allocated || !info.Held {
			t.Fatalf("%+v, %v of a freed number that is locked", info, err)
		}
		_, err := m.AllocateAndRetrieveLock(l.ID())
		must(t, err)
	})
}

func TestFreeAllLocksLeavesFilesThatAreNoLocks(t *testing.T) {
	m, path := files.fresh(t)
	allocated(t, m)
	stranger := filepath.Join(path, "notes")
	must(t, os.WriteFile(stranger, nil, 0o600))
	must(t, m.FreeAllLocks())
	if _, err := os.Stat(stranger); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(path, "0")); err == nil {
		t.Error("the lock's file is left")
	}
}

func TestWhatIsNoDirectoryOfLocksIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	_, err := lockmanager.OpenFileLockManager(path)
	wantError(t, err, syscall.ENOTDIR)
}

func TestANumberRoundedUpIsTheNumberOfEverybody(t *testing.T) {
	path := newSHMName(t)
	_, err := lockmanager.NewSHMLockManager(path, 2000)
	must(t, err)
	m, err := lockmanager.OpenSHMLockManager(path, 2000)
	must(t, err)
	retrieved(t, m, 2015)
	_, err = m.RetrieveLock(2016)
	wantError(t, err, syscall.EINVAL)
}

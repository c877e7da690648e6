// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// mistake is a call that fails, and what its text says and does not say.
type mistake struct {
	name           string
	err            error
	wanted, barred []string
}

func (m mistake) check(t *testing.T) {
	t.Helper()
	if m.err == nil {
		t.Errorf("%s: no error", m.name)
		return
	}
	for _, words := range m.wanted {
		if !strings.Contains(m.err.Error(), words) {
			t.Errorf("%s: the text does not say %q: %v", m.name, words, m.err)
		}
	}
	for _, words := range m.barred {
		if strings.Contains(m.err.Error(), words) {
			t.Errorf("%s: the text says %q: %v", m.name, words, m.err)
		}
	}
}

func errorOf(_ any, err error) error { return err }

// Whoever calls libpod's names is a program that Podman's users run: they can change num_locks and give a command.
func TestErrorsOfLibpodsNamesAreInTheWordsOfPodmansUsers(t *testing.T) {
	const renumber, numLocks = "podman system renumber", "num_locks"
	path := newSHMName(t)
	m, err := lockmanager.NewSHMLockManager(path, 64)
	must(t, err)
	wrongNumber := errorOf(lockmanager.OpenSHMLockManager(path, 128))
	noNumber := errorOf(lockmanager.OpenSHMLockManager(path, 0))
	beyond := errorOf(m.RetrieveLock(64))
	givenBeyond := errorOf(m.AllocateAndRetrieveLock(64))
	for i := 0; i < 64; i++ {
		allocated(t, m)
	}
	full := errorOf(m.AllocateLock())
	l := retrieved(t, m, 3)
	l.Lock()
	twice := l.LockErr()
	l.Unlock()
	must(t, os.Remove(filepath.Join("/dev/shm", path)))
	var removed error
	eventually(t, "the removal is noticed", func() bool {
		removed = m.FreeAllLocks()
		return removed != nil
	})
	must(t, os.WriteFile(filepath.Join("/dev/shm", path), make([]byte, 5000), 0o600))
	strange := errorOf(lockmanager.OpenSHMLockManager(path, 64))
	for _, m := range []mistake{
		{"no segment of anybody's", strange, []string{path, "magic number", "remove it", renumber}, nil},
		{"another number", wrongNumber, []string{path, "holds 64 locks, 128 were asked for; ", numLocks, renumber}, []string{"open with 0"}},
		{"no number", noNumber, []string{numLocks}, nil},
		{"a lock beyond the range", beyond, []string{"no lock 64", "from 0 to 63; ", numLocks, renumber}, nil},
		{"allocating it", givenBeyond, []string{"no lock 64", numLocks, renumber}, nil},
		{"all allocated", full, []string{"all 64 locks are allocated; ", numLocks, renumber}, nil},
		{"one's own lock", twice, []string{"lock 3 is held by this very thread", "podman system locks", renumber}, nil},
		{"a removed segment", removed, []string{"was removed", renumber, "podman service"}, []string{"close it"}},
	} {
		m.check(t)
	}
}

func TestErrorsOfTheNewNamesAreInTheWordsOfGo(t *testing.T) {
	m, path := native.fresh(t)
	mine, err := lockmanager.OpenOrNewSHMLockManager(path, 0)
	must(t, err)
	for i := 0; i < 64; i++ {
		allocated(t, m)
	}
	free := retrieved(t, mine, 5)
	must(t, free.Free())
	freedTwice := free.Free()
	allocated(t, mine)
	for _, m := range []mistake{
		{"another number", errorOf(lockmanager.OpenOrNewSHMLockManager(path, 128)), []string{"holds 64 locks, 128 were asked for; ask for 0 to accept any number"}, []string{"podman"}},
		{"no segment", lockmanager.RemoveSHM(newSHMName(t)), []string{"OpenOrNewSHMLockManager"}, []string{"open_or_new"}},
		{"all allocated", errorOf(mine.AllocateLock()), []string{"grow"}, []string{"podman"}},
		{"freed twice", freedTwice, []string{"Info tells"}, []string{"lock_info"}},
		{"beyond the range", errorOf(mine.RetrieveLock(64)), []string{"from 0 to 63"}, []string{"podman"}},
	} {
		m.check(t)
	}
}

// A storage's name is its own, even where a function is called the same.
func TestTheNameOfAStorageIsNotPutIntoOtherWords(t *testing.T) {
	path := newSHMName(t) + "-lock_info"
	err := lockmanager.RemoveSHM(path)
	if err == nil || !strings.Contains(err.Error(), path+": ") {
		t.Fatalf("%s is not named: %v", path, err)
	}
}

var (
	exported = regexp.MustCompile(`(?m)^int32_t lock_manager_([a-z]+(?:_[a-z]+)+)\(`)
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\(?s:.))*"`)
	compound = regexp.MustCompile(`\b[a-z]+(?:_[a-z]+)+\b`)
)

// The C library's sentences name its functions, whole or the beginning of several names; each has a name in Go.
func TestEveryNameThatTheLibrarysSentencesMayHoldHasOneInGo(t *testing.T) {
	header, err := os.ReadFile("../include/lock_manager.h")
	if err != nil {
		t.Skip("skipped: the C library's source is not beside the package: ", err)
	}
	sentences, err := os.ReadFile("../src/error/sentence.rs")
	must(t, err)
	var functions []string
	for _, match := range exported.FindAllStringSubmatch(string(header), -1) {
		functions = append(functions, match[1])
	}
	if len(functions) < 20 {
		t.Fatalf("only these functions are found in the header: %v", functions)
	}
	said := append([]string(nil), functions...)
	for _, literal := range quoted.FindAllString(string(sentences), -1) {
		for _, word := range compound.FindAllString(literal, -1) {
			for _, function := range functions {
				if strings.HasPrefix(function, word) {
					said = append(said, word)
				}
			}
		}
	}
	for _, name := range said {
		// Engines in other libraries call these, and no program.
		if name == "open_backend" || strings.HasPrefix(name, "backend_") {
			continue
		}
		// Podman's setting has that name as well.
		if name != "num_locks" && !lockmanager.HasGoName(name) {
			t.Errorf("%s has no name in Go", name)
		}
	}
}

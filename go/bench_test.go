// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"runtime"
	"sort"
	"sync"
	"testing"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
	"github.com/lock-manager/lock-manager/go/internal/ctest"
)

// What libpod's own package costs, measured elsewhere on a machine of this kind, beside the figures of this run. Only
// ratios mean anything: a bare foreign call was 26 ns there.
const (
	libpodSHMPair  = 73.0
	libpodFilePair = 4776.0
	libpodListHeld = 126_000.0
)

func BenchmarkTwoBareForeignCalls(b *testing.B) {
	for i := 0; i < b.N; i++ {
		ctest.Nothing()
		ctest.Nothing()
	}
}

func benchmarkPair(b *testing.B, l sync.Locker, libpod float64) {
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		l.Lock()
		//lint:ignore SA2001 the pair alone is measured
		l.Unlock()
	}
	if libpod != 0 {
		b.ReportMetric(libpod, "libpod-ns/op")
	}
}

// timed is how long a call takes, in nanoseconds, on average of that many.
func timed(calls int, call func()) float64 {
	began := time.Now()
	for i := 0; i < calls; i++ {
		call()
	}
	return float64(time.Since(began).Nanoseconds()) / float64(calls)
}

// The pair may cost 1.1 times two bare foreign calls and 25 ns. All are measured in turns, because a machine that others
// use as well is not as fast at one time as at another; what counts is the medians. robust-ns is a robust mutex with
// nothing around it but two foreign calls and the pinning: where not even that is within what is allowed, the machine is
// too busy to tell.
func BenchmarkPair(b *testing.B) {
	const rounds, calls = 201, 10_000
	onLibpod, _ := libpod.fresh(b)
	onNative, _ := native.fresh(b)
	inMemory, _ := memory.fresh(b)
	inLibpod, inNative, ofMemory := allocated(b, onLibpod), allocated(b, onNative), allocated(b, inMemory)
	readNative := allocated(b, onNative)
	mutex := ctest.NewMutex()
	kinds := []struct {
		name string
		call func()
	}{
		{"bare-ns", func() {
			ctest.Nothing()
			ctest.Nothing()
		}},
		{"native-layout-ns", func() {
			inNative.Lock()
			//lint:ignore SA2001 the pair alone is measured
			inNative.Unlock()
		}},
		{"native-shared-ns", func() {
			readNative.RLock()
			//lint:ignore SA2001 the pair alone is measured
			readNative.RUnlock()
		}},
		{"libpod-layout-ns", func() {
			inLibpod.Lock()
			//lint:ignore SA2001 the pair alone is measured
			inLibpod.Unlock()
		}},
		{"in-memory-ns", func() {
			ofMemory.Lock()
			//lint:ignore SA2001 the pair alone is measured
			ofMemory.Unlock()
		}},
		{"robust-ns", func() {
			runtime.LockOSThread()
			mutex.Lock()
			mutex.Unlock()
			runtime.UnlockOSThread()
		}},
	}
	took := make([][]float64, len(kinds))
	for i := 0; i < b.N; i++ {
		for i := 0; i < rounds; i++ {
			for i, kind := range kinds {
				took[i] = append(took[i], timed(calls, kind.call))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, kind := range kinds {
		sort.Float64s(took[i])
		b.ReportMetric(took[i][len(took[i])/2], kind.name)
	}
	b.ReportMetric(1.1*took[0][len(took[0])/2]+25, "allowed-ns")
	b.ReportMetric(libpodSHMPair, "libpod-ns")
}

// onEveryLayout measures the layouts of a segment beside each other.
func onEveryLayout(b *testing.B, measure func(b *testing.B, s storage)) {
	for _, s := range []storage{libpod, native} {
		b.Run(s.name, func(b *testing.B) { measure(b, s) })
	}
}

func BenchmarkPairFile(b *testing.B) {
	m, _ := files.fresh(b)
	l := allocated(b, m)
	b.Run("exclusive", func(b *testing.B) { benchmarkPair(b, l, libpodFilePair) })
	b.Run("shared", func(b *testing.B) { benchmarkPair(b, l.RLocker(), 0) })
}

// Of all goroutines at once, on one lock; "RWMutex" is Go's own, of one process.
func BenchmarkReadersAtOnce(b *testing.B) {
	m, _ := native.fresh(b)
	inMemory, _ := memory.fresh(b)
	for _, kind := range []struct {
		name   string
		locker sync.Locker
	}{
		{native.name, allocated(b, m).RLocker()},
		{"in-memory", allocated(b, inMemory).RLocker()},
		{"RWMutex", new(sync.RWMutex).RLocker()},
	} {
		b.Run(kind.name, func(b *testing.B) {
			b.RunParallel(func(next *testing.PB) {
				for next.Next() {
					kind.locker.Lock()
					//lint:ignore SA2001 the pair alone is measured
					kind.locker.Unlock()
				}
			})
		})
	}
}

func BenchmarkPairLockContext(b *testing.B) {
	onEveryLayout(b, func(b *testing.B, s storage) {
		m, _ := s.fresh(b)
		l := allocated(b, m)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		b.ResetTimer()
		for i := 0; i < b.N; i++ {
			if err := l.LockContext(ctx); err != nil {
				b.Fatal(err)
			}
			l.Unlock()
		}
	})
}

// Of a lock that another thread of this process holds: what each goroutine pays before it queues.
func BenchmarkTryLockOfAHeldLock(b *testing.B) {
	onEveryLayout(b, func(b *testing.B, s storage) {
		m, _ := s.fresh(b)
		l := allocated(b, m)
		held, release := make(chan struct{}), make(chan struct{})
		go func() {
			l.Lock()
			close(held)
			<-release
			l.Unlock()
		}()
		<-held
		b.ResetTimer()
		for i := 0; i < b.N; i++ {
			if taken, err := l.TryLock(); taken || err != nil {
				b.Fatal(taken, err)
			}
		}
		close(release)
	})
}

func BenchmarkRetrieveLock(b *testing.B) {
	onEveryLayout(b, func(b *testing.B, s storage) {
		m, _ := s.fresh(b)
		b.ResetTimer()
		for i := 0; i < b.N; i++ {
			if _, err := m.RetrieveLock(7); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkLocksHeldOf2048(b *testing.B) {
	for _, layout := range []struct {
		name   string
		option lockmanager.Option
	}{{libpod.name, lockmanager.WithLayout(lockmanager.Libpod)}, {native.name, lockmanager.WithLayout(lockmanager.Native)}} {
		b.Run(layout.name, func(b *testing.B) {
			m, err := lockmanager.NewSHMLockManager(newSHMName(b), 2048, layout.option)
			must(b, err)
			b.ResetTimer()
			for i := 0; i < b.N; i++ {
				if _, err := m.LocksHeld(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(libpodListHeld, "libpod-ns/op")
		})
	}
}

// From cancellation until LockContext has returned; it may be 10 ms.
func BenchmarkCancellation(b *testing.B) { onEveryLayout(b, benchmarkCancellation) }

func benchmarkCancellation(b *testing.B, s storage) {
	m, place := s.fresh(b)
	l := allocated(b, m)
	holder := startChild(b, s, place)
	holder.ask(b, "lock %d", l.ID())
	var longest, all time.Duration
	for i := 0; i < b.N; i++ {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan time.Time, 1)
		go func() {
			l.LockContext(ctx)
			ended <- time.Now()
		}()
		eventually(b, "it waits", func() bool { return lockmanager.Waiting(l) == 1 })
		began := time.Now()
		cancel()
		took := (<-ended).Sub(began)
		all += took
		if took > longest {
			longest = took
		}
	}
	b.ReportMetric(float64(longest.Microseconds()), "longest-µs")
	b.ReportMetric(float64(all.Microseconds())/float64(b.N), "mean-µs")
}

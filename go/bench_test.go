// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"runtime"
	"slices"
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
	for range b.N {
		ctest.Nothing()
		ctest.Nothing()
	}
}

func benchmarkPair(b *testing.B, l lockmanager.Locker, libpod float64) {
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		l.Lock()
		//lint:ignore SA2001 the pair alone is measured
		l.Unlock()
	}
	if libpod != 0 {
		b.ReportMetric(libpod, "libpod-ns/op")
	}
}

// The pair may cost 1.1 times two bare foreign calls and 25 ns. Both are measured in turns, because a machine that others
// use as well is not as fast at one time as at another; what counts is the medians. robust-ns is a robust mutex with
// nothing around it but two foreign calls and the pinning: where not even that is within what is allowed, the machine is
// too busy to tell.
func BenchmarkPairSHM(b *testing.B) {
	const rounds, calls = 201, 10_000
	m, _ := freshSHM(lockmanager.Libpod)(b)
	l := allocated(b, m)
	mutex := ctest.NewMutex()
	var bare, pair, robust [rounds]float64
	for range b.N {
		for round := range rounds {
			began := time.Now()
			for range calls {
				ctest.Nothing()
				ctest.Nothing()
			}
			between := time.Now()
			for range calls {
				l.Lock()
				//lint:ignore SA2001 the pair alone is measured
				l.Unlock()
			}
			bare[round] = float64(between.Sub(began).Nanoseconds()) / calls
			after := time.Now()
			for range calls {
				runtime.LockOSThread()
				mutex.Lock()
				mutex.Unlock()
				runtime.UnlockOSThread()
			}
			pair[round] = float64(after.Sub(between).Nanoseconds()) / calls
			robust[round] = float64(time.Since(after).Nanoseconds()) / calls
		}
	}
	slices.Sort(bare[:])
	slices.Sort(pair[:])
	slices.Sort(robust[:])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(bare[rounds/2], "bare-ns")
	b.ReportMetric(pair[rounds/2], "pair-ns")
	b.ReportMetric(robust[rounds/2], "robust-ns")
	b.ReportMetric(1.1*bare[rounds/2]+25, "allowed-ns")
	b.ReportMetric(libpodSHMPair, "libpod-ns")
}

func BenchmarkPairFile(b *testing.B) {
	m, _ := freshFile(b)
	benchmarkPair(b, allocated(b, m), libpodFilePair)
}

func BenchmarkPairInMemory(b *testing.B) {
	m, _ := freshInMemory(b)
	benchmarkPair(b, allocated(b, m), 0)
}

func BenchmarkPairLockContext(b *testing.B) {
	m, _ := freshSHM(lockmanager.Libpod)(b)
	l := allocated(b, m)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for b.Loop() {
		if err := l.LockContext(ctx); err != nil {
			b.Fatal(err)
		}
		l.Unlock()
	}
}

func BenchmarkRetrieveLock(b *testing.B) {
	m, _ := freshSHM(lockmanager.Libpod)(b)
	for b.Loop() {
		if _, err := m.RetrieveLock(7); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLocksHeldOf2048(b *testing.B) {
	m, err := lockmanager.NewSHMLockManager(newSHMName(b), 2048, lockmanager.WithLayout(lockmanager.Libpod))
	must(b, err)
	for b.Loop() {
		if _, err := m.LocksHeld(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(libpodListHeld, "libpod-ns/op")
}

// From cancellation until LockContext has returned; it may be 10 ms.
func BenchmarkCancellation(b *testing.B) {
	m, place := freshSHM(lockmanager.Libpod)(b)
	l := allocated(b, m)
	holder := startChild(b, storages[0], place)
	holder.ask(b, "lock %d", l.ID())
	var longest, all time.Duration
	for range b.N {
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
		longest, all = max(longest, took), all+took
	}
	b.ReportMetric(float64(longest.Microseconds()), "longest-µs")
	b.ReportMetric(float64(all.Microseconds())/float64(b.N), "mean-µs")
}

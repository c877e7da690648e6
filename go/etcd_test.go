// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// ownAddresses gives two free addresses to listen at, of a part of loopback that is this process's alone. Between now and then nobody else
// gets them: who listens at some port of 127.0.0.1, or connects from one, does not meet them.
func ownAddresses(t *testing.T) (client, peer string) {
	t.Helper()
	// A process id has 22 bits.
	pid := os.Getpid()
	host := net.IPv4(127, byte(pid>>14), byte(pid>>6), byte(pid<<2))
	var addresses [2]string
	for i := range addresses {
		listener, err := net.Listen("tcp", net.JoinHostPort(host.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		// At the end, so that the two differ.
		defer listener.Close()
		addresses[i] = listener.Addr().String()
	}
	return addresses[0], addresses[1]
}

// etcdEndpoint starts an etcd of one member that ends with the test.
func etcdEndpoint(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("skipped: needs etcd, which is in Debian's etcd-server")
	}
	client, peer := ownAddresses(t)
	command := exec.Command("etcd", "--data-dir", t.TempDir(), "--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := http.Post("http://"+client+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"AA=="}`))
		if err == nil {
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if strings.Contains(string(body), "revision") {
				return client
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("etcd is not ready: ", err)
		}
	}
}

func openEtcd(t *testing.T, address, host string) lockmanager.ExtendedManager {
	t.Helper()
	manager, err := lockmanager.OpenEtcdLockManager(address, 64, lockmanager.WithHostName(host))
	if errors.Is(err, syscall.ENOSYS) {
		t.Skip("skipped: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(forgetHosts(t))
	return manager
}

// forgetHosts removes what the hosts that this process is have in memory: they are nobody's after the test.
func forgetHosts(t *testing.T) func() {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, line := range strings.Split(string(maps), "\n") {
		if at := strings.Index(line, "/dev/shm/lock_manager-etcd-"); at >= 0 {
			files = append(files, line[at:])
		}
	}
	return func() {
		for _, file := range files {
			_ = os.Remove(file)
		}
	}
}

func TestLocksInEtcdExcludeHostsAndHaveTokens(t *testing.T) {
	address := fmt.Sprintf("etcd://%s/go-%d", etcdEndpoint(t), os.Getpid())
	one, other := openEtcd(t, address, "one"), openEtcd(t, address, "other")
	lockOf := func(manager lockmanager.ExtendedManager) *lockmanager.EtcdLock {
		locker, err := manager.RetrieveLock(3)
		if err != nil {
			t.Fatal(err)
		}
		return locker.(*lockmanager.EtcdLock)
	}
	mine, theirs := lockOf(one), lockOf(other)
	if err := mine.LockErr(); err != nil {
		t.Fatal(err)
	}
	first, err := mine.FencingToken()
	if err != nil || first == 0 {
		t.Fatal(first, err)
	}
	if got, err := theirs.TryLock(); got || err != nil {
		t.Fatal("two hosts have it: ", got, err)
	}
	if _, err := theirs.FencingToken(); !errors.Is(err, syscall.EPERM) {
		t.Fatal(err)
	}
	waited := make(chan error)
	ctx, stop := context.WithCancel(context.Background())
	go func() { waited <- theirs.LockContext(ctx) }()
	parties := partiesOf(t, mine, 2)
	if holder := parties[0]; !holder.Holds || !holder.Here || holder.Host != "one" || holder.PID != os.Getpid() || holder.Token != first {
		t.Fatal(holder)
	}
	if waiter := parties[1]; waiter.Holds || waiter.Here || waiter.Host != "other" || waiter.Token != 0 {
		t.Fatal(waiter)
	}
	stop()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := mine.UnlockErr(); err != nil {
		t.Fatal(err)
	}
	if err := theirs.LockErr(); err != nil {
		t.Fatal(err)
	}
	if second, err := theirs.FencingToken(); err != nil || second <= first {
		t.Fatal(first, second, err)
	}
	if fd, err := other.(*lockmanager.EtcdLockManager).LostFD(); err != nil || fd < 0 {
		t.Fatal(fd, err)
	}
	if err := theirs.UnlockErr(); err != nil {
		t.Fatal(err)
	}
	for _, manager := range []lockmanager.ExtendedManager{one, other} {
		if err := manager.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{"one", "other"} {
		err := lockmanager.RemoveEtcd(address, lockmanager.WithHostName(host))
		if host == "one" && err != nil || host == "other" && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(host, err)
		}
	}
}

// partiesOf waits until so many hold the lock or wait for it.
func partiesOf(t *testing.T, lock *lockmanager.EtcdLock, number int) []lockmanager.EtcdParty {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		parties, err := lock.Parties()
		if err != nil || time.Now().After(end) {
			t.Fatal(parties, err)
		}
		if len(parties) == number {
			return parties
		}
	}
}

func TestAnEtcdThatIsNotThereIsNamed(t *testing.T) {
	_, err := lockmanager.OpenEtcdLockManager("etcd://127.0.0.1:1/locks", 64, lockmanager.WithPatience(time.Second))
	if errors.Is(err, syscall.ENOSYS) {
		t.Skip("skipped: ", err)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Fatal(err)
	}
	if _, err = lockmanager.OpenEtcdLockManager("etcd://", 64); !errors.Is(err, syscall.EINVAL) {
		t.Fatal(err)
	}
}

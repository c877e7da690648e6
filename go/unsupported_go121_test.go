// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build go1.21

package lockmanager_test

import (
	"errors"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// Older versions of Go have no errors.ErrUnsupported; there the numbers alone tell.
func TestWhatCannotBeDoneIsErrUnsupported(t *testing.T) {
	manager, err := lockmanager.NewInMemoryManager(1)
	if err == nil {
		err = manager.(lockmanager.ExtendedManager).Close()
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("without the library: %v", err)
	}
	// No segment is made: locks of the libpod layout cannot belong to the process.
	_, err = lockmanager.NewSHMLockManager("/lm-test-go-unsupported", 32, lockmanager.WithProcessOwnership())
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
}

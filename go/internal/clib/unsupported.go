// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build !(linux && cgo)

package clib

import "syscall"

// unsupported is what every call says where the C library cannot be called; from Go 1.21 on syscall.ENOSYS is
// errors.ErrUnsupported.
var unsupported = &Failure{
	Errno: syscall.ENOSYS,
	Text:  "lock_manager needs Linux and cgo; build with CGO_ENABLED=1 and a C compiler",
}

func NewSHM(string, uint32, SHMOptions) (Manager, *Failure)       { return 0, unsupported }
func OpenOrNewSHM(string, uint32, SHMOptions) (Manager, *Failure) { return 0, unsupported }
func OpenSHM(string, uint32) (Manager, *Failure)                  { return 0, unsupported }
func OpenSHMReadOnly(string) (Manager, *Failure)                  { return 0, unsupported }
func RemoveSHM(string) *Failure                                   { return unsupported }
func NewFile(string) (Manager, *Failure)                          { return 0, unsupported }
func OpenFile(string) (Manager, *Failure)                         { return 0, unsupported }
func OpenOrNewFile(string) (Manager, *Failure)                    { return 0, unsupported }
func RemoveFile(string) *Failure                                  { return unsupported }
func NewInMemory(uint32) (Manager, *Failure)                      { return 0, unsupported }
func OpenEtcd(string, uint32, EtcdOptions) (Manager, *Failure)    { return 0, unsupported }
func RemoveEtcd(string, EtcdOptions) *Failure                     { return unsupported }

func (Manager) OwnByProcess() *Failure                                        { return unsupported }
func (Manager) EtcdParties(uint32) ([]EtcdParty, *Failure)                    { return nil, unsupported }
func (Manager) FencingToken(uint32) (uint64, *Failure)                        { return 0, unsupported }
func (Manager) LostFD() (int, *Failure)                                       { return 0, unsupported }
func (Manager) Close() *Failure                                               { return unsupported }
func (Manager) AllocateLock() (uint32, *Failure)                              { return 0, unsupported }
func (Manager) RetrieveLock(uint32) *Failure                                  { return unsupported }
func (Manager) AllocateAndRetrieveLock(uint32) *Failure                       { return unsupported }
func (Manager) FreeLock(uint32) *Failure                                      { return unsupported }
func (Manager) FreeAllLocks() *Failure                                        { return unsupported }
func (Manager) AvailableLocks() (uint32, *Failure)                            { return 0, unsupported }
func (Manager) NumLocks() (uint32, *Failure)                                  { return 0, unsupported }
func (Manager) Grow(uint32) *Failure                                          { return unsupported }
func (Manager) TryLock(uint32, Owner) Answer                                  { return Answer{} }
func (Manager) Lock(uint32, Owner) (Taken, *Failure)                          { return 0, unsupported }
func (Manager) CancellableLock(uint32, Owner, Cancel) (Taken, *Failure)       { return 0, unsupported }
func (Manager) Unlock(uint32, Owner) Answer                                   { return Answer{} }
func (Manager) TryLockShared(uint32, Owner) Answer                            { return Answer{} }
func (Manager) LockShared(uint32, Owner) (Taken, *Failure)                    { return 0, unsupported }
func (Manager) CancellableLockShared(uint32, Owner, Cancel) (Taken, *Failure) { return 0, unsupported }
func (Manager) UnlockShared(uint32, Owner) Answer                             { return Answer{} }
func (Manager) Downgrade(uint32) *Failure                                     { return unsupported }
func (Manager) LockHolders(uint32, int) ([]Holder, int, *Failure)             { return nil, 0, unsupported }
func (Manager) LocksHeld([]uint32) (int, *Failure)                            { return 0, unsupported }
func (Manager) LockInfo(uint32) (LockInfo, *Failure)                          { return LockInfo{}, unsupported }
func (Manager) Info() (Info, *Failure)                                        { return Info{}, unsupported }
func (Manager) RepairLock(uint32) *Failure                                    { return unsupported }

// Answer is always that nothing can be done.
type Answer struct{}

func (Answer) IsClean() bool            { return false }
func (Answer) Taken() (Taken, *Failure) { return 0, unsupported }
func (Answer) Failure() *Failure        { return unsupported }

func NewCancel() (Cancel, *Failure) { return 0, unsupported }
func (Cancel) Trigger() *Failure    { return unsupported }
func (Cancel) Free() *Failure       { return unsupported }

func Version() string { return "" }

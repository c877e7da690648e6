module github.com/lock-manager/lock-manager/benches/go

go 1.21.0

require (
	github.com/gofrs/flock v0.12.1
	github.com/lock-manager/lock-manager/go v0.0.0
)

require golang.org/x/sys v0.22.0 // indirect

replace github.com/lock-manager/lock-manager/go => ../../go

module github.com/lock-manager/lock-manager/go

go 1.19

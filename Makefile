.PHONY: ci test quickstart

ci:
	bash .ci/run

test:
	go test -race ./...

quickstart:
	go run ./examples/quickstart

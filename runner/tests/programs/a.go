package main

import (
	"os"
	"sync"
)

func main() {
	var all sync.WaitGroup
	for i := 0; i < 50; i++ {
		all.Add(1)
		go func() { all.Done() }()
	}
	all.Wait()
	attributes := os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
	process, err := os.StartProcess("/bin/echo", []string{"echo", "works", "7"}, &attributes)
	if err != nil {
		panic(err)
	}
	process.Wait()
}

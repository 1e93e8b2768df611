package main

// #include <unistd.h>
import "C"

import (
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"syscall"
	"time"
)

// /fork copies the process. The copy has one thread, so it only does what needs no other: it writes
// requests, which passes a probed instruction, and ends. The answer says how it ended; "hung" where it
// waits for a lock that another thread held when it was copied, as some do, traced or not.
func init() {
	http.HandleFunc("/fork", func(w http.ResponseWriter, r *http.Request) {
		request, _ := http.NewRequest("GET", "http://127.0.0.1/", nil)
		defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would wait for the other threads
		child := int(C.fork())
		if child == 0 {
			for i := 0; i < 100; i++ {
				if request.Write(io.Discard) != nil {
					syscall.Exit(2)
				}
			}
			syscall.Exit(0)
		}
		status := syscall.WaitStatus(0)
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if ended, _ := syscall.Wait4(child, &status, syscall.WNOHANG, nil); ended == child {
				if status.Signaled() {
					fmt.Fprint(w, status.Signal())
				} else {
					fmt.Fprint(w, "status ", status.ExitStatus())
				}
				return
			}
		}
		syscall.Kill(child, syscall.SIGKILL)
		syscall.Wait4(child, &status, 0, nil)
		fmt.Fprint(w, "hung")
	})
}

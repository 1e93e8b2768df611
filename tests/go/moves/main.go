// Command moves is a traced program that becomes another one, or starts others, when it is told to.
//
//	moves ADDRESS [CALLS]   serves; first makes so many calls to itself, each in a goroutine of its own
//
// Its first line of output says where it listens, and its process id.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

func call(address string) error {
	resp, err := http.Get("http://" + address + "/echo")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// callAtOnce makes calls from goroutines whose ids are those of an earlier life of the process.
func callAtOnce(address string, calls int) {
	var all sync.WaitGroup
	for i := 0; i < calls; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			if err := call(address); err != nil {
				log.Print(err)
			}
		}()
	}
	all.Wait()
}

// The thread that began the process is that of main alone: the kernel keeps it across an execve
// that it makes itself, and ends it in one that another thread makes.
func init() { runtime.LockOSThread() }

func main() {
	log.SetFlags(0)
	onMain := make(chan func())
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	address := listener.Addr().String()

	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.Header.Values("Traceparent")))
	})
	http.HandleFunc("/call", func(w http.ResponseWriter, r *http.Request) {
		if err := call(address); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	http.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	http.HandleFunc("/exec", func(w http.ResponseWriter, r *http.Request) {
		program := r.FormValue("program")
		arguments := append([]string{program}, r.Form["argument"]...)
		failed := make(chan error)
		execute := func() { failed <- syscall.Exec(program, arguments, os.Environ()) }
		if r.FormValue("thread") == "main" {
			onMain <- execute
		} else {
			go execute()
		}
		http.Error(w, (<-failed).Error(), http.StatusInternalServerError)
	})
	http.HandleFunc("/spawn", func(w http.ResponseWriter, r *http.Request) {
		child := exec.Command("/proc/self/exe", "127.0.0.1:0", r.FormValue("calls"))
		out, err := child.StdoutPipe()
		if err == nil {
			err = child.Start()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		line := make([]byte, 256) // the child's first line
		n, _ := out.Read(line)
		w.Write(line[:n])
	})

	go http.Serve(listener, nil)
	if len(os.Args) > 2 {
		calls, _ := strconv.Atoi(os.Args[2])
		callAtOnce(address, calls)
	}
	fmt.Println(address, os.Getpid())
	for execute := range onMain {
		execute()
	}
}

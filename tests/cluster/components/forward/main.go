// Command forward accepts connections on a socket that it is handed and carries each to an address in another
// network namespace. It is how the host's processes reach an API server whose namespace has no way out.
//
// Only this direction exists: nothing inside the other namespace can open a connection through it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	socket := flag.Uint("socket", 3, "file descriptor of the listening socket")
	namespace := flag.String("netns", "", "file of the network namespace to connect in")
	target := flag.String("target", "", "address to connect to in that namespace")
	flag.Parse()
	if err := forward(os.NewFile(uintptr(*socket), "socket"), *namespace, *target); err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		os.Exit(1)
	}
}

func forward(socket *os.File, namespace, target string) error {
	listener, err := net.FileListener(socket)
	if err != nil {
		return err
	}
	dial, err := dialerIn(namespace)
	if err != nil {
		return err
	}
	log.Printf("carrying connections from %s to %s in %s", listener.Addr(), target, namespace)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go carry(conn, target, dial)
	}
}

type dialer func(address string) (net.Conn, error)

func carry(conn net.Conn, target string, dial dialer) {
	defer conn.Close()
	peer, err := dial(target)
	if err != nil {
		log.Print(err)
		return
	}
	defer peer.Close()
	join(conn.(*net.TCPConn), peer.(*net.TCPConn))
}

// dialerIn returns a function that connects from within a namespace. A socket belongs to the namespace of the
// thread that made it, so one thread moves there for good and makes every socket; data then flows on any thread.
func dialerIn(namespace string) (dialer, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	type request struct {
		address string
		reply   chan result
	}
	requests := make(chan request)
	entered := make(chan error)
	go func() {
		runtime.LockOSThread()
		entered <- enter(namespace)
		dialer := net.Dialer{Timeout: 5 * time.Second}
		for r := range requests {
			// The address is an IP: there is nothing to look up, so Dial makes its socket on this very thread.
			conn, err := dialer.Dial("tcp", r.address)
			r.reply <- result{conn, err}
		}
	}()
	if err := <-entered; err != nil {
		return nil, err
	}
	return func(address string) (net.Conn, error) {
		r := request{address, make(chan result)}
		requests <- r
		answer := <-r.reply
		return answer.conn, answer.err
	}, nil
}

func enter(namespace string) error {
	file, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering %s: %w", namespace, err)
	}
	return nil
}

// join copies both ways and passes on each side's end of data, as an exec with standard input needs.
func join(a, b *net.TCPConn) {
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		both.Add(1)
		go func() {
			defer both.Done()
			_, err := io.Copy(way[1], way[0])
			if err == nil {
				err = way[1].CloseWrite()
			}
			if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ENOTCONN) {
				return
			}
			// One side is gone, so what is still to come from the other has nowhere to go.
			_ = a.Close()
			_ = b.Close()
		}()
	}
	both.Wait()
}

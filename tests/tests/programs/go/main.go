// What a Go program leans on: goroutines, children, signals, HTTP over TLS, file watching. Prints a line per part.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func goroutines(string) error {
	var total atomic.Int64
	var group sync.WaitGroup
	for i := 0; i < 1000; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			if i%100 == 0 {
				runtime.LockOSThread() // its thread ends with it
			}
			runtime.Gosched()
			total.Add(1)
		}(i)
	}
	group.Wait()
	return expect(total.Load(), int64(1000))
}

func children(string) error {
	cat := exec.Command("cat")
	cat.Stdin = bytes.NewReader(bytes.Repeat([]byte("pipe"), 1<<18))
	out, err := cat.Output()
	if err != nil {
		return err
	}
	if err := expect(len(out), 1<<20); err != nil {
		return err
	}
	var ended *exec.ExitError
	if err := exec.Command("sh", "-c", "exit 3").Run(); !errors.As(err, &ended) || ended.ExitCode() != 3 {
		return fmt.Errorf("exit 3 came as %w", err)
	}
	sleeper := exec.Command("sleep", "600")
	if err := sleeper.Start(); err != nil {
		return err
	}
	if err := sleeper.Process.Kill(); err != nil {
		return err
	}
	if err := sleeper.Wait(); !errors.As(err, &ended) {
		return fmt.Errorf("a killed child ended as %w", err)
	}
	return expect(ended.Sys().(syscall.WaitStatus).Signal(), syscall.SIGKILL)
}

func signals(string) error {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	defer signal.Stop(caught)
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		return err
	}
	return expect((<-caught).(syscall.Signal), syscall.SIGUSR1)
}

func secure(string) error {
	certificate, roots, err := selfSigned()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, r.URL.Path) }),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	go server.ServeTLS(listener, "", "")
	defer server.Close()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	answer, err := (&http.Client{Transport: transport}).Get("https://" + listener.Addr().String() + "/secret")
	if err != nil {
		return err
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	return expect(string(body), "HTTP/2.0/secret")
}

func selfSigned() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "loopback"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, nil
}

func watching(directory string) error {
	inotify, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer syscall.Close(inotify)
	if _, err := syscall.InotifyAddWatch(inotify, directory, syscall.IN_CLOSE_WRITE); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "watched"), []byte("now"), 0o600); err != nil {
		return err
	}
	event := make([]byte, 4096)
	count, err := syscall.Read(inotify, event)
	if err != nil {
		return err
	}
	name := bytes.TrimRight(event[syscall.SizeofInotifyEvent:count], "\x00")
	return expect(string(name), "watched")
}

func expect[T comparable](got, wanted T) error {
	if got != wanted {
		return fmt.Errorf("%v instead of %v", got, wanted)
	}
	return nil
}

func run() error {
	directory, err := os.MkdirTemp("", "programs-go-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	parts := []struct {
		name string
		try  func(string) error
	}{
		{"goroutines", goroutines},
		{"children", children},
		{"signals", signals},
		{"secure", secure},
		{"watching", watching},
	}
	for _, part := range parts {
		if err := part.try(directory); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		fmt.Println("OK", part.name)
	}
	left := exec.Command("sleep", "600")
	left.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := left.Start(); err != nil {
		return err
	}
	fmt.Println("LEFT", left.Process.Pid)
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(43)
}

// A step-ca for tests, around Debian's golang-github-smallstep-certificates-dev, which has the
// library but no command. Called as the real one: step-ca CONFIG --password-file FILE
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/ca"

	// Keys and signing in software, the only kind there is here.
	_ "github.com/smallstep/certificates/cas/softcas"
	_ "github.com/smallstep/certificates/kms/softkms"
)

func main() {
	if len(os.Args) != 4 || os.Args[2] != "--password-file" {
		end("usage", errors.New("step-ca CONFIG --password-file FILE"))
	}
	configuration, err := config.LoadConfiguration(os.Args[1])
	if err != nil {
		end("configuration", err)
	}
	password, err := os.ReadFile(os.Args[3])
	if err != nil {
		end("password", err)
	}
	server, err := ca.New(configuration, ca.WithConfigFile(os.Args[1]),
		ca.WithPassword(bytes.TrimSpace(password)))
	if err != nil {
		end("start", err)
	}
	go ca.StopReloaderHandler(server) // SIGTERM ends it, SIGHUP reads the configuration again
	if err := server.Run(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		end("run", err)
	}
}

func end(where string, err error) {
	fmt.Fprintf(os.Stderr, "step-ca: %s: %v\n", where, err)
	os.Exit(1)
}

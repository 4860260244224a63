// Command openapi prints the document that nodes answer at /openapi.json. `make web` has the panel's types made of it.
//
// Imports: api, internal/auth.
package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"

	"sluice/api"
	"sluice/internal/auth"
)

func main() {
	a := api.New(api.Config{Version: "dev"}, api.Deps{Accounts: auth.New(nil, auth.Config{}),
		Client: func(*http.Request) netip.Addr { return netip.Addr{} }, Secure: func(*http.Request) bool { return false }})
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	if w.Code != http.StatusOK {
		fmt.Fprintln(os.Stderr, w.Body)
		os.Exit(1)
	}
	fmt.Println(w.Body)
}

// Example app behind the gateway. Run it with:
//
//	AKOYA_JWKS=http://127.0.0.1:8080/akoya/jwks.json go run ./server
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	akoya "example.com/akoya-gateway-verifier"
)

func main() {
	keys := akoya.NewJWKS(os.Getenv("AKOYA_JWKS")).Key
	if secret := os.Getenv("AKOYA_SECRET"); secret != "" {
		shared, err := akoya.Secret(secret)
		if err != nil {
			log.Fatal(err)
		}
		keys = func(string) (akoya.Key, error) { return shared, nil }
	}
	app := akoya.Middleware(keys, func(w http.ResponseWriter, r *http.Request, verified akoya.Verified) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"owner": verified.Owner, "connector": verified.Connector})
	})
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, app))
}

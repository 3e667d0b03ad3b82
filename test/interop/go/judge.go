// What go-spiffe makes of inputs, many in one request: accepted, with what it saw, or refused, with its words. See docs/differential.md.
package main

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// One input of one family; bytes are base64 in JSON.
type exhibit struct {
	Family string `json:"family"`
	// A text that need not be UTF-8: an ID, a name, an address.
	Text        []byte   `json:"text"`
	Form        string   `json:"form"`
	TrustDomain string   `json:"trustDomain"`
	Path        string   `json:"path"`
	Segments    []string `json:"segments"`
	Of          []string `json:"of"`
	// Leaf first.
	Chain [][]byte `json:"chain"`
	// Certificates one behind the other, or PEM.
	Certificates []byte              `json:"certificates"`
	Key          []byte              `json:"key"`
	Roots        map[string][][]byte `json:"roots"`
	Jwks         map[string][]byte   `json:"jwks"`
	Token        string              `json:"token"`
	Audience     []string            `json:"audience"`
	// Not for tokens: go-spiffe judges those by the clock on the wall.
	NowMs int64 `json:"nowMs"`
}

func judge(exhibits []exhibit) object {
	verdicts := make([]object, len(exhibits))
	for i, one := range exhibits {
		verdicts[i] = verdict(one)
	}
	return object{"verdicts": verdicts}
}

func verdict(one exhibit) (answer object) {
	defer func() {
		if fault := recover(); fault != nil {
			answer = object{"refused": fmt.Sprint("panic: ", fault)}
		}
	}()
	saw, err := look(one)
	if err != nil {
		return object{"refused": err.Error()}
	}
	return object{"saw": saw}
}

func look(one exhibit) (string, error) {
	switch one.Family {
	case "spiffe-id":
		return lookAtID(one)
	case "trust-domain":
		domain, err := spiffeid.TrustDomainFromString(string(one.Text))
		return domain.Name(), err
	case "match":
		return lookAtMatch(one)
	case "endpoint-address":
		return "", workloadapi.ValidateAddress(string(one.Text))
	case "x509-svid-parse":
		parse := x509svid.ParseRaw
		if one.Form == "pem" {
			parse = x509svid.Parse
		}
		svid, err := parse(one.Certificates, one.Key)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %d", svid.ID, len(svid.Certificates)), nil
	case "x509-svid-verify":
		set := x509bundle.NewSet()
		for name, roots := range one.Roots {
			domain, err := spiffeid.TrustDomainFromString(name)
			if err != nil {
				return "", err
			}
			bundle := x509bundle.New(domain)
			for _, der := range roots {
				root, err := x509.ParseCertificate(der)
				if err != nil {
					return "", fmt.Errorf("authority: %w", err)
				}
				bundle.AddX509Authority(root)
			}
			set.Add(bundle)
		}
		id, _, err := x509svid.ParseAndVerify(one.Chain, set, x509svid.WithTime(time.UnixMilli(one.NowMs)))
		return id.String(), err
	case "jwt-svid":
		set := jwtbundle.NewSet()
		for name, jwks := range one.Jwks {
			domain, err := spiffeid.TrustDomainFromString(name)
			if err != nil {
				return "", err
			}
			bundle, err := jwtbundle.Parse(domain, jwks)
			if err != nil {
				return "", err
			}
			set.Add(bundle)
		}
		svid, err := jwtsvid.ParseAndValidate(one.Token, set, one.Audience)
		if err != nil {
			return "", err
		}
		return svid.ID.String(), nil
	case "bundle":
		return lookAtBundle(one)
	}
	return "", fmt.Errorf("family %q is not known", one.Family)
}

func lookAtID(one exhibit) (string, error) {
	if one.Form == "text" {
		id, err := spiffeid.FromString(string(one.Text))
		return id.String(), err
	}
	domain, err := spiffeid.TrustDomainFromString(one.TrustDomain)
	if err != nil {
		return "", err
	}
	var id spiffeid.ID
	if one.Form == "path" {
		id, err = spiffeid.FromPath(domain, one.Path)
	} else {
		id, err = spiffeid.FromSegments(domain, one.Segments...)
	}
	return id.String(), err
}

func lookAtMatch(one exhibit) (string, error) {
	id, err := spiffeid.FromString(string(one.Text))
	if err != nil {
		return "", err
	}
	ids := []spiffeid.ID{}
	if one.Form != "member-of" {
		for _, text := range one.Of {
			wanted, err := spiffeid.FromString(text)
			if err != nil {
				return "", err
			}
			ids = append(ids, wanted)
		}
	}
	matcher := spiffeid.MatchAny()
	switch one.Form {
	case "id":
		matcher = spiffeid.MatchID(ids[0])
	case "one-of":
		matcher = spiffeid.MatchOneOf(ids...)
	case "member-of":
		domain, err := spiffeid.TrustDomainFromString(one.Of[0])
		if err != nil {
			return "", err
		}
		matcher = spiffeid.MatchMemberOf(domain)
	}
	return id.String(), matcher(id)
}

func lookAtBundle(one exhibit) (string, error) {
	domain, err := spiffeid.TrustDomainFromString(one.TrustDomain)
	if err != nil {
		return "", err
	}
	switch one.Form {
	case "spiffe":
		bundle, err := spiffebundle.Parse(domain, one.Text)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d X.509, %d JWT", len(bundle.X509Authorities()), len(bundle.JWTAuthorities())), nil
	case "jwt":
		bundle, err := jwtbundle.Parse(domain, one.Text)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d JWT", len(bundle.JWTAuthorities())), nil
	case "x509-der", "x509-pem":
		parse := x509bundle.ParseRaw
		if one.Form == "x509-pem" {
			parse = x509bundle.Parse
		}
		bundle, err := parse(domain, one.Text)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d X.509", len(bundle.X509Authorities())), nil
	}
	return "", fmt.Errorf("form %q is not known", one.Form)
}

package access

import (
	"errors"
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// contextName names cluster, user and context of the kubeconfig.
const contextName = "tandem"

// WriteKubeconfig writes a kubeconfig of the user admin. A token that the file
// has already and that is still good is kept, so that a restart doesn't log
// anybody out. It returns the token.
func (s *Store) WriteKubeconfig(path, server string, ca []byte) (string, error) {
	clear, err := s.keptToken(path)
	if err != nil {
		return "", err
	}
	if clear == "" {
		if clear, err = s.Issue(User{Name: "admin", Role: Admin}); err != nil {
			return "", err
		}
	}
	c := api.NewConfig()
	c.Clusters[contextName] = &api.Cluster{Server: server, CertificateAuthorityData: ca}
	c.AuthInfos[contextName] = &api.AuthInfo{Token: clear}
	c.Contexts[contextName] = &api.Context{Cluster: contextName, AuthInfo: contextName, Namespace: "default"}
	c.CurrentContext = contextName
	raw, err := clientcmd.Write(*c)
	if err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return clear, replaceFile(path, raw)
}

func (s *Store) keptToken(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read kubeconfig: %w", err)
	}
	c, err := clientcmd.Load(raw)
	if err != nil || c.AuthInfos[contextName] == nil {
		return "", nil //nolint:nilerr // not one of ours any more: a new one takes its place
	}
	clear := c.AuthInfos[contextName].Token
	if u, ok := s.Token(clear); !ok || u.Role != Admin {
		return "", nil
	}
	return clear, nil
}

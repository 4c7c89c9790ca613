//! Mutual TLS: the certificate of the connection says who we are, and calls carry no `Authorization`. The certificate is
//! a setting of the connection ([`crate::net::TlsSettings`]).

pub(super) const REFUSED: &str = "the connection stands, so the instance did not take our certificate for a user: check that the plugin \
    com.glide.auth.mutual is active, that the CA chain is uploaded (sys_ca_certificate), that the certificate is mapped to \
    an active user (sys_user_certificate), and that nothing in between ends TLS: an inspecting proxy takes the certificate \
    away";

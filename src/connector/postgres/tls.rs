//! TLS with a server of PostgreSQL's, as libpq speaks it: how much of the server's certificate is looked at is `sslmode`'s to say.
//!
//! Invariant: a key or certificate that cannot be read is an error that names its file; nothing is shown of what is in it.

use std::path::PathBuf;
use std::sync::Arc;

use backstay_storage::disk::{Disk, OpenOptions};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is asked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Nothing: TLS keeps those out who only listen.
    Nothing,
    /// That an authority signed it.
    Authority,
    /// That, and that it is for this host.
    Host,
}

/// Certificates or a key.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Pem {
    File(PathBuf),
    Text(String),
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Text(_) => f.write_str("(text)"),
        }
    }
}

/// How TLS is spoken.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) check: Check,
    /// Who may have signed the server's certificate; `None`: whom the system trusts.
    pub(super) authority: Option<Pem>,
    /// The client's certificate and its key.
    pub(super) client: Option<(Pem, Pem)>,
    pub(super) disk: Arc<dyn Disk>,
}

impl Tls {
    /// Reads the files; an error says which one is wrong.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| e.to_string())?.dangerous();
        let verifier: Arc<dyn ServerCertVerifier> = match self.check {
            Check::Nothing => Arc::new(Lenient { provider, authority: None }),
            Check::Authority => Arc::new(Lenient { authority: Some(self.verifier(&provider)?), provider }),
            Check::Host => self.verifier(&provider)?,
        };
        let builder = builder.with_custom_certificate_verifier(verifier);
        let config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let named = |pem: &Pem, e: &dyn std::fmt::Display| format!("the client's {}: {e}", pem.name());
                let chain = self.certificates(certificate)?;
                let secret = PrivateKeyDer::from_pem_slice(&self.bytes(key)?).map_err(|e| named(key, &e))?;
                builder.with_client_auth_cert(chain, secret).map_err(|e| named(certificate, &e))?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }

    /// What looks at chain and host.
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
        let mut roots = RootCertStore::empty();
        let (certificates, whose) = match &self.authority {
            Some(pem) => (self.certificates(pem)?, pem.name()),
            None => (rustls_native_certs::load_native_certs().certs, "system".to_owned()),
        };
        roots.add_parsable_certificates(certificates);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().map_err(|e| {
            format!(
                "no certificate of an authority comes from the {whose} ({e}); name a file by sslrootcert in \"uri\""
            )
        })
    }

    fn certificates(&self, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
        let bytes = self.bytes(pem)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match found {
            Ok(found) if found.is_empty() => Err(format!("the {} has no certificate in PEM", pem.name())),
            Ok(found) => Ok(found),
            Err(e) => Err(format!("the {} is not PEM: {e}", pem.name())),
        }
    }

    fn bytes(&self, pem: &Pem) -> Result<Vec<u8>, String> {
        let path = match pem {
            Pem::Text(text) => return Ok(text.clone().into_bytes()),
            Pem::File(path) => path,
        };
        let read = || {
            let file = self.disk.open(path, OpenOptions::READ)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or_default()];
            let n = file.read_at(&mut bytes, 0)?;
            bytes.truncate(n);
            Ok(bytes)
        };
        read().map_err(|e: backstay_storage::Error| format!("cannot read the {}: {e}", pem.name()))
    }
}

impl Pem {
    fn name(&self) -> String {
        match self {
            Self::File(path) => format!("file {}", path.display()),
            Self::Text(_) => "text in PEM".to_owned(),
        }
    }
}

/// Looks at less than the whole certificate.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// Looks at the chain, if that is asked for.
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! As a DaemonSet's pod: server, account and who signs the server's certificate are what the cluster gives a pod. Token
//! and certificates are replaced while the program runs, as a kubelet replaces them.
//!
//! `in_cluster/` has two authorities and a certificate of each for 127.0.0.1, made by openssl for a hundred years. Their
//! keys open nothing but the servers of these tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::cluster::{Cluster, SERVICES, service};
use crate::program::{PROGRAM, Program, free_port, get, populated, until};
use crate::server::{Answer, Api, Asked};
use crate::{HERE, Scratch, server};

/// The server lets in who has the token of the moment, and shows the certificate of that number.
#[derive(Clone)]
struct Guarded {
    cluster: Cluster,
    lets_in: Arc<Mutex<(&'static str, u8)>>,
}

impl Guarded {
    fn acceptor(&self) -> TlsAcceptor {
        let file =
            |kind| format!("{HERE}/in_cluster/server-{}.{kind}", self.lets_in.lock().unwrap().1);
        let certificate = CertificateDer::from_pem_file(file("crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
    }
}

impl Api for Guarded {
    fn answer(&self, asked: &Asked) -> Option<Answer> {
        if asked.token.as_deref() == Some(self.lets_in.lock().unwrap().0) {
            return self.cluster.answer(asked);
        }
        let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401});
        Some(Answer::whole(401, status.to_string()))
    }
}

/// What a pod finds below /var/run/secrets, in a folder of its own.
struct Account {
    scratch: Scratch,
    files: PathBuf,
}

impl Account {
    fn make() -> Self {
        let scratch = Scratch::make();
        let files = scratch.path().join("secrets/kubernetes.io/serviceaccount");
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("namespace"), "ciliate").unwrap();
        Self { scratch, files }
    }

    /// As a kubelet does: readers see the old file or the new one.
    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let beside = self.files.join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.files.join(name)).unwrap();
    }

    fn put_authority(&self, number: u8) {
        self.put("ca.crt", fs::read(format!("{HERE}/in_cluster/authority-{number}.crt")).unwrap());
    }

    /// A command that sees them at their place, and nobody else does.
    fn command(&self, program: &Path) -> Command {
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = Command::new("unshare");
        command.args((!is_root).then_some("--map-root-user")).args(["--mount", "sh", "-ec"]);
        command
            .arg("mount --bind \"$0\" /var/run; exec \"$@\"")
            .arg(self.scratch.path())
            .arg(program);
        command.env_remove("KUBECONFIG").env("HOME", "/nonexistent");
        command
    }
}

#[tokio::test]
async fn what_the_pod_is_given_is_read_again() {
    let (account, files, cluster) = (Account::make(), Scratch::make(), populated());
    let api = Guarded { cluster: cluster.clone(), lets_in: Arc::new(Mutex::new(("first", 1))) };
    let guarded = api.clone();
    let address = server::listen_by_tls(Arc::new(api.clone()), move || guarded.acceptor()).await;
    account.put("token", "first");
    account.put_authority(1);
    let metrics = free_port();
    let mut program = account.command(Path::new(PROGRAM));
    program.env("KUBERNETES_SERVICE_HOST", address.ip().to_string());
    program.env("KUBERNETES_SERVICE_PORT", address.port().to_string());
    program.args(["--node", "node-a", "--metrics", &metrics.to_string(), "--directory"]);
    let _program = Program(program.arg(files.path()).stderr(Stdio::null()).spawn().unwrap());
    let says = |what: &str| get(metrics, "/ready").is_some_and(|text| text.contains(what));
    until("the first files", || files.names().len() == 4).await;
    until("ready", || says("200 OK")).await;

    // The old token is refused before the new one is known, and so is the old authority's certificate.
    let before = files.files();
    account.put("token", "second");
    account.put_authority(2);
    *api.lets_in.lock().unwrap() = ("second", 2);
    cluster.put(SERVICES, service("db", "10.96.0.10", 80));
    cluster.cut();
    until("it is told", || says("the last good files stay")).await;
    let begin = Instant::now();
    while files.names().len() == 4 {
        assert_eq!(files.files(), before);
        assert!(begin.elapsed() < Duration::from_secs(240), "never: {:?}", get(metrics, "/ready"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(files.names().len(), 5);
}

/// A kubeconfig that is there is meant: it comes before what the pod is given.
#[tokio::test]
async fn a_kubeconfig_comes_first() {
    let (account, files, cluster) = (Account::make(), Scratch::make(), populated());
    let address = server::listen(Arc::new(cluster)).await;
    account.put("token", "first");
    account.put_authority(1);
    let mut program = account.command(Path::new(PROGRAM));
    program.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", "1");
    program.env("KUBECONFIG", crate::program::kubeconfig(&files, address, "{token: abc}"));
    let directory = files.path().join("conf.d");
    program.args(["--node", "node-a", "--directory"]).arg(&directory).stderr(Stdio::null());
    let _program = Program(program.spawn().unwrap());
    until("all files", || fs::read_dir(&directory).is_ok_and(|all| all.count() == 4)).await;
}

//! Jobs of the stand-in: what the first word of the command says happens.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread;

use zbus::{Connection, Message, ObjectPath};

use super::{Options, dictionary, refuse};

/// The job's path; the stand-in has one at a time.
pub const PATH: &str = "/org/deputy/Deputy1/job/abcdefghijklmnop";

#[derive(Default)]
struct Job {
    argv: Vec<Vec<u8>>,
    watched: usize,
    watcher: Option<File>,
    options: HashMap<String, String>,
    terminals: Vec<bool>,
    secret: Vec<u8>,
    logs: u32,
}

/// The jobs.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<Job>>);

impl Jobs {
    /// Which of the descriptors that came were terminals.
    pub fn terminals(&self) -> Vec<bool> {
        self.0.lock().unwrap().terminals.clone()
    }

    /// What the last run's descriptor of variables brought.
    pub fn secret(&self) -> Vec<u8> {
        self.0.lock().unwrap().secret.clone()
    }

    /// The options of the last run, as text.
    pub fn options(&self) -> HashMap<String, String> {
        self.0.lock().unwrap().options.clone()
    }

    pub async fn answer(&self, connection: &Connection, message: &Message, method: &str) {
        let header = message.header();
        match method {
            "Jobs.Run" => {
                let (subject, argv, options): (String, Vec<Vec<u8>>, Options) =
                    message.body().deserialize().unwrap();
                if argv[0] == b"denied" {
                    return refuse(
                        connection,
                        message,
                        "NoConsent",
                        ("nobody\u{1b}c consented", "consent", "link it"),
                    )
                    .await;
                }
                self.begin(&subject, argv, options);
                connection.reply(&header, &ObjectPath::try_from(PATH).unwrap()).await.unwrap();
            }
            "Job.Watch" => {
                let (reader, writer) = io::pipe().unwrap();
                self.watch(OwnedFd::from(writer).into());
                connection.reply(&header, &zbus::OwnedFd::from(OwnedFd::from(reader))).await.unwrap();
            }
            "Job.Output" => {
                let (stream, mut options): (String, Options) = message.body().deserialize().unwrap();
                assert_eq!(stream, "stdout");
                let follow = bool::try_from(options.remove("follow").unwrap()).unwrap();
                let offset = u64::try_from(options.remove("offset").unwrap()).unwrap();
                let pipe = self.output(follow, offset);
                connection.reply(&header, &zbus::OwnedFd::from(pipe)).await.unwrap();
            }
            "Job.Cancel" => {
                self.cancel();
                connection.reply(&header, &()).await.unwrap();
            }
            "Job.Get" => {
                let argv = vec![b"ls".to_vec(), b"\xff\\".to_vec()];
                let (id, queued) = ("abcdefghijklmnop".into(), 1_000_000u64.into());
                let job = if self.0.lock().unwrap().logs > 1 {
                    dictionary([("id", id), ("queued", queued), ("ended", 2_000_000u64.into())])
                } else {
                    dictionary([("id", id), ("argv", argv.into()), ("queued", queued)])
                };
                connection.reply(&header, &job).await.unwrap();
            }
            _ => connection
                .reply_error(&header, "org.freedesktop.DBus.Error.UnknownMethod", &method)
                .await
                .unwrap(),
        }
    }

    fn cancel(&self) {
        let mut job = self.0.lock().unwrap();
        if job.argv[0] == b"wait"
            && let Some(mut watcher) = job.watcher.take()
        {
            watcher.write_all(b"{\"state\":\"done\",\"status\":143,\"signal\":15}\n").unwrap();
        }
    }

    fn begin(&self, subject: &str, argv: Vec<Vec<u8>>, mut options: Options) {
        let file = |value: zbus::OwnedVariant| {
            let descriptor = zbus::Fd::try_from(value).ok()?;
            Some(File::from(OwnedFd::try_from(descriptor).unwrap()))
        };
        let texts = options.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        let watch = options.remove("watch").and_then(file);
        let secret = options.remove("environment_fd").and_then(file);
        let mut descriptors: Vec<File> = ["stdin", "stdout", "stderr"]
            .into_iter()
            .filter_map(|name| options.remove(name).and_then(file))
            .collect();
        let mut job = self.0.lock().unwrap();
        job.secret.clear();
        if let Some(mut secret) = secret {
            secret.read_to_end(&mut job.secret).unwrap();
        }
        job.terminals = descriptors.iter().map(|file| rustix::termios::isatty(file.as_fd())).collect();
        job.options = texts;
        job.options.insert("subject".into(), subject.into());
        job.watched = 0;
        job.argv = argv;
        job.logs = 0;
        if job.argv[0] == b"echo" {
            drop(job);
            let jobs = self.clone();
            thread::spawn(move || {
                let [stdin, stdout, stderr] = &mut descriptors[..] else { panic!() };
                io::copy(stdin, stdout).unwrap();
                stderr.write_all(b"to standard error\n").unwrap();
                // As in life: what a job wrote is written before its end is told.
                jobs.tell("{\"state\":\"done\",\"status\":0}\n");
            });
        } else {
            drop(job);
        }
        if let Some(watch) = watch {
            self.watch(watch);
        }
    }

    /// What was captured of the job: in two parts, with a restart of the daemon between them.
    fn output(&self, follow: bool, offset: u64) -> OwnedFd {
        const PARTS: [&str; 2] = ["one\n", "\n[deputy: 90 bytes left out]\ntwo\n"];
        let (reader, mut writer) = io::pipe().unwrap();
        let mut job = self.0.lock().unwrap();
        job.logs += 1;
        let text = match (follow, job.logs) {
            (false, _) => PARTS.concat(),
            (true, 1) => PARTS[0].to_owned(),
            (true, 2) if offset == 4 => PARTS[1].to_owned(),
            (true, 3) if offset == 98 => "three\n".to_owned(),
            other => panic!("{other:?} at {offset}"),
        };
        writer.write_all(text.as_bytes()).unwrap();
        reader.into()
    }

    /// Tells the watcher, as soon as there is one.
    fn tell(&self, line: &str) {
        loop {
            if let Some(mut watcher) = self.0.lock().unwrap().watcher.take() {
                return watcher.write_all(line.as_bytes()).unwrap();
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn watch(&self, mut writer: File) {
        let mut job = self.0.lock().unwrap();
        job.watched += 1;
        writer.write_all(b"{\"state\":\"running\"}\n").unwrap();
        let argument =
            job.argv.get(1).map(|word| String::from_utf8(word.clone()).unwrap()).unwrap_or_default();
        let end = match &job.argv[0][..] {
            b"exit" => format!("{{\"state\":\"done\",\"exit_code\":{argument},\"status\":{argument}}}\n"),
            b"missing" => r#"{"state":"done","status":127,"failed_step":"exec","errno":2}"#.to_owned() + "\n",
            b"cannot" => r#"{"state":"done","status":126,"failed_step":"exec","errno":13}"#.to_owned() + "\n",
            b"lost" => r#"{"state":"lost","cause":"the machine died"}"#.to_owned() + "\n",
            // The first watcher hears nothing more: the stand-in was restarted.
            b"restarted" if job.watched == 1 => String::new(),
            b"restarted" => "{\"state\":\"done\",\"status\":5}\n".to_owned(),
            _ => {
                job.watcher = Some(writer);
                return;
            }
        };
        // In pieces: a line is not a read.
        let (first, second) = end.split_at(end.len() / 2);
        writer.write_all(first.as_bytes()).unwrap();
        writer.write_all(second.as_bytes()).unwrap();
    }
}

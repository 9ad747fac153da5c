//! Jobs of the stand-in: what the first word of the command says happens.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
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
}

/// The jobs.
#[derive(Clone, Default)]
pub struct Jobs(Arc<Mutex<Job>>);

impl Jobs {
    /// Which of the descriptors that came were terminals.
    pub fn terminals(&self) -> Vec<bool> {
        self.0.lock().unwrap().terminals.clone()
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
            "Job.Cancel" => {
                self.cancel();
                connection.reply(&header, &()).await.unwrap();
            }
            "Job.Get" => {
                let argv = vec![b"ls".to_vec(), b"\xff\\".to_vec()];
                let job = dictionary([
                    ("id", "abcdefghijklmnop".into()),
                    ("argv", argv.into()),
                    ("queued", 1_000_000u64.into()),
                ]);
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
        let mut descriptors = ["stdin", "stdout", "stderr"].map(|name| {
            let descriptor = zbus::Fd::try_from(options.remove(name).unwrap()).unwrap();
            File::from(OwnedFd::try_from(descriptor).unwrap())
        });
        let mut job = self.0.lock().unwrap();
        job.terminals = descriptors.iter().map(|file| rustix::termios::isatty(file.as_fd())).collect();
        job.options = options.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        job.options.insert("subject".into(), subject.into());
        job.watched = 0;
        job.argv = argv;
        if job.argv[0] == b"echo" {
            drop(job);
            let jobs = self.clone();
            thread::spawn(move || {
                let [stdin, stdout, stderr] = &mut descriptors;
                io::copy(stdin, stdout).unwrap();
                stderr.write_all(b"to standard error\n").unwrap();
                // As in life: what a job wrote is written before its end is told.
                jobs.tell("{\"state\":\"done\",\"status\":0}\n");
            });
        }
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

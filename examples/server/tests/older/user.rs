//! A user in the older spellings.

use serde_json::{Value, json};

use crate::http::{Body, Http, Reply};
use crate::site::until;

pub(crate) struct User {
    pub(crate) http: Http,
    token: String,
}

impl User {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        Self { http: Http::to(url), token: format!("Bearer {token}") }
    }

    pub(crate) fn get(&mut self, target: &str) -> Reply {
        self.http.send("GET", target, &[("Authorization", &self.token)], &Body::None)
    }

    fn post(&mut self, target: &str, body: &Value) -> Reply {
        let body = body.to_string();
        let headers = [("Authorization", &*self.token)];
        self.http.send("POST", target, &headers, &Body::Sized("application/json", body.as_bytes()))
    }

    /// Uploads a ZIP as a browser's form does; gives the answer.
    pub(crate) fn upload(&mut self, name: &str, zip: &[u8]) -> Value {
        let boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW";
        let mut form = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/zip\r\n\r\n"
        )
        .into_bytes();
        form.extend(zip);
        form.extend(format!("\r\n--{boundary}--\r\n").bytes());
        let kind = format!("multipart/form-data; boundary={boundary}");
        let headers = [("Authorization", &*self.token)];
        self.http.send("POST", "/api/files/upload", &headers, &Body::Chunked(&kind, &form)).ok(201)
    }

    /// Submits a job; gives its id.
    #[track_caller]
    pub(crate) fn submit(&mut self, spec: &Value) -> String {
        let answer = self.post("/api/jobs/submit", spec).ok(201);
        answer["jobId"].as_str().unwrap().to_owned()
    }

    /// Cancels a job; gives the status that it has then.
    pub(crate) fn cancel(&mut self, job: &str) -> Value {
        self.post("/api/jobs/cancel", &json!({ "jobId": job })).ok(200)["status"].clone()
    }

    pub(crate) fn job(&mut self, job: &str) -> Value {
        self.get(&format!("/api/jobs/status?jobId={job}")).ok(200)
    }

    /// Waits until a job is in this status.
    pub(crate) fn until(&mut self, job: &str, status: &str) -> Value {
        until(&format!("{job} is {status}"), || Some(self.job(job)).filter(|job| job["status"] == status))
    }

    /// The whole output.
    pub(crate) fn logs(&mut self, job: &str) -> String {
        let logs = self.get(&format!("/api/jobs/logs?jobId={job}"));
        assert_eq!(logs.status, 200, "{}", logs.text());
        logs.text()
    }
}

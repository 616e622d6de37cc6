//! Clients of HTTP/1.0 know no chunked coding (RFC 9112, section 6.1): the close ends what has no length.

use crate::harness::{Backend, Units, backend, proxy, soon};

/// Asserts that this backend's answer reaches such a client as it is, ended by the close alone.
async fn assert_ends_by_close(a: &Backend) {
    let lb = proxy().upstream("web", [a]).start().await;
    let mut client = lb.connect().await;
    client
        .send_bytes(b"GET /home HTTP/1.0\r\nHost: example.test\r\nConnection: keep-alive\r\n\r\n")
        .await
        .unwrap();
    let all = soon("the close", 2.secs(), client.read_until_closed()).await;
    let text = String::from_utf8(all).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert!(!head.contains("connection: keep-alive"), "{head}");
    assert_eq!(body, "x".repeat(1000));
}

#[tokio::test]
async fn a_chunked_answer_is_ended_by_the_close() {
    let a = backend("a").chunked().response_body(1000).start().await;
    assert_ends_by_close(&a).await;
}

#[tokio::test]
async fn an_answer_that_the_close_ends_is_ended_by_the_close() {
    let a = backend("a").ends_by_closing().response_body(1000);
    assert_ends_by_close(&a.start().await).await;
}

//! What is on the picture at which size.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::load::{Answer, Answered};
use crate::model::tests::{look, model};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Twelve seconds in: server2 was killed, server3 hangs with an abandoned request.
fn busy() -> Model {
    let mut model = model();
    model.observe(seconds(8), Some(look([1000, 1000, 1000])));
    model.servers[1] = Condition::Ended;
    model.note(seconds(9), "server2 killed (kill -9)");
    let mut status = look([1234, 1000, 1000]);
    let backends = &mut status.upstream.backends;
    backends.get_mut("server2").unwrap().why_not = Some("it refuses connections".to_owned());
    backends.get_mut("server3").unwrap().abandoned = 1;
    model.servers[2] = Condition::Hangs;
    model.observe(seconds(11), Some(status));
    for _ in 0..50 {
        let took = Duration::from_millis(201);
        let answer = Answer::Served;
        model.count(seconds(11), Answered { answer, took });
    }
    model
}

fn picture(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let drawn = terminal.draw(|frame| {
        draw(
            model,
            seconds(12),
            Theme::COLOURED,
            frame.area(),
            frame.buffer_mut(),
        );
    });
    text(drawn.unwrap().buffer)
}

fn text(buffer: &Buffer) -> String {
    let rows = buffer.content.chunks(usize::from(buffer.area.width.max(1)));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
        .collect()
}

#[track_caller]
fn assert_shows(picture: &str, words: &[&str]) {
    for word in words {
        assert!(picture.contains(word), "no {word:?} in\n{picture}");
    }
}

#[test]
fn everything_is_there_at_80_by_24() {
    let picture = picture(&busy(), 80, 24);
    assert_shows(
        &picture,
        &[
            "maitred",
            "0:12",
            "server1 11      eligible",
            "server2 killed  it refuses connections",
            "server3 hangs   eligible                   1/1       1,000   0 % 1 abandoned",
            "1,234 100 % ████",
            "queue    3 waiting    ███",
            "6 clients   10.0 requests/s   p50 201 ms   p99 201 ms",
            "50 ok   0 failed",
            "health   ok, 0 s old   poller runs",
            "0:09     server2 killed (kill -9)",
            "0:11     server2 is out: it refuses connections",
            "1 2 3 kill or revive a server   s wakes server3   d drains server2",
            "p pauses the poller   + - clients   q quits",
            "curl localhost:8080/home   curl localhost:9900/api/v1/status",
            "/tmp/maitred-AbCdEf/health_status.json",
        ],
    );
    assert!(
        picture.trim_end().ends_with("health_status.json"),
        "{picture}"
    );
}

#[test]
fn a_narrow_and_low_terminal_shows_what_matters_most() {
    let picture = picture(&busy(), 40, 15);
    assert_shows(
        &picture,
        &[
            " maitred                          0:12 ",
            "server1 eligible     1/1   1,234 100 %",
            "server2 killed: it … 1/1",
            "server3 hangs: elig… 1/1",
            "50 ok   0 failed",
            "0:11     server2 is out",
            "1 2 3 kill   s hang",
            "q quit",
        ],
    );
}

#[test]
fn the_servers_are_the_last_to_go() {
    assert_shows(&picture(&busy(), 60, 4), &["server1", "server2", "server3"]);
    assert_shows(&picture(&busy(), 60, 5), &["server3", "0 failed"]);
}

#[test]
fn failures_and_their_kinds_are_told_apart() {
    let mut model = busy();
    for answer in [
        Answer::Failed("502 reset".to_owned()),
        Answer::TimedOut,
        Answer::Refused,
    ] {
        let took = seconds(2);
        model.count(seconds(12), Answered { answer, took });
    }
    assert_shows(
        &picture(&model, 80, 24),
        &["1 failed   1 timed out (504)   1 refused (503)"],
    );
}

#[test]
fn nothing_is_known_before_the_first_look() {
    assert_shows(
        &picture(&model(), 80, 24),
        &["unknown", "0 waiting", "0 failed"],
    );
}

#[test]
fn without_colours_no_cell_has_one() {
    let area = Rect::new(0, 0, 80, 24);
    for (theme, has_any) in [(Theme::PLAIN, false), (Theme::COLOURED, true)] {
        let mut buffer = Buffer::empty(area);
        draw(&busy(), seconds(12), theme, area, &mut buffer);
        let coloured = buffer
            .content
            .iter()
            .any(|cell| cell.fg != ratatui::style::Color::Reset);
        assert_eq!(coloured, has_any);
    }
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let model = busy();
    for width in 1..=200 {
        // Above 30 rows there are only more events.
        for height in (1..=30).chain([45, 60]) {
            let area = Rect::new(0, 0, width, height);
            let mut buffer = Buffer::empty(area);
            draw(&model, seconds(12), Theme::COLOURED, area, &mut buffer);
            let drawn = buffer.content.iter().any(|cell| cell.symbol() != " ");
            assert_eq!(drawn, width > 2, "{width} x {height}");
        }
    }
}

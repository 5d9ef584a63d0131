//! What outlives processes: System V's shared memory, semaphores and queues. A container that is used again must not hand them on.

use crate::sys::{self, Ipc};

/// Removes all of them. They are the job's user's, who is this process's.
pub(crate) fn remove_ipc() {
    let tables: [(&[u8], Ipc); 3] = [
        (b"/proc/sysvipc/shm\0", Ipc::Memory),
        (b"/proc/sysvipc/sem\0", Ipc::Semaphores),
        (b"/proc/sysvipc/msg\0", Ipc::Queue),
    ];
    for (path, kind) in tables {
        let table = sys::open(path, 0);
        if table < 0 {
            continue;
        }
        remove_listed(table, kind);
        sys::close(table);
    }
}

/// Each line begins with a key and an id; the first one is the heading.
fn remove_listed(table: isize, kind: Ipc) {
    let mut buffer = [0; 4096];
    let (mut column, mut id, mut is_heading, mut in_word) = (0, 0_isize, true, false);
    loop {
        let Ok(count) = usize::try_from(sys::read(table, &mut buffer)) else { return };
        if count == 0 {
            return;
        }
        for byte in &buffer[..count] {
            match byte {
                b'\n' => {
                    if !is_heading {
                        sys::remove_ipc(kind, id);
                    }
                    (column, id, is_heading, in_word) = (0, 0, false, false);
                }
                b' ' => in_word = false,
                byte => {
                    if !in_word {
                        column += 1;
                        in_word = true;
                    }
                    if column == 2 && byte.is_ascii_digit() {
                        id = id.wrapping_mul(10).wrapping_add(isize::from(byte - b'0'));
                    }
                }
            }
        }
    }
}

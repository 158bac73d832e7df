import CDavit
import Glibc

/// The right to make an image in a store by long work: held as long as this object lives, or a program that has inherited its descriptor.
public final class PullLock: Sendable {
    public let descriptor: Int32

    init(in store: String, wait: () -> Void) throws(StoreError) {
        let path = store + "/.pull.lock"
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .host("lock '\(path)'") }
        var hasTold = false
        while davit_file_lock(descriptor, true) != 0 {
            guard errno == EAGAIN || errno == EACCES || errno == EINTR else {
                let code = errno
                close(descriptor)
                throw .host("lock '\(path)'", code: code)
            }
            if !hasTold { wait() }
            hasTold = true
            usleep(200_000)
        }
    }

    deinit { close(descriptor) }
}

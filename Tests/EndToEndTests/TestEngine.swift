import Glibc

/// The engines that this host has.
enum TestEngine {
    static let hasKVM: Bool = {
        let isThere = access("/dev/kvm", R_OK | W_OK) == 0
        if !isThere { print("WARNING: no /dev/kvm on this host: nothing is tested on the KVM engine") }
        return isThere
    }()

    static let all = hasKVM ? ["soft", "kvm"] : ["soft"]
}

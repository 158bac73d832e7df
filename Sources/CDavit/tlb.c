#include "davit_tlb.h"

DAVIT_GENERAL_REGISTERS_ONLY bool davit_tlb_refill(davit_cpu *cpu, uint64_t linear, uint64_t size, uint64_t write) {
    size &= ~(uint64_t)DAVIT_WINDOW_MISS;
    // Without paging there is no second level; an access over a page's end never hits.
    if (!(cpu->cr0 & 1u << 31) || (linear & 0xFFF) + size > 4096) return false;
    uint64_t translation = davit_cached_translation(cpu, linear);
    if (translation == DAVIT_NO_TRANSLATION) return false;
    cpu->refills++;
    davit_tlb_fill(cpu, linear, translation, cpu->tlb_mode);
    davit_tlb *tlb = &cpu->tlb[cpu->tlb_mode];
    uint64_t i = linear >> 12 & (DAVIT_TLB_ENTRIES - 1);
    return davit_tlb_hits(write ? tlb->write_tag[i] : tlb->read_tag[i], linear, size);
}

/* The interface of nds_cuda.so to nds.node. Plain C: the two may come from different compilers and standard libraries.
 * Structures have tags: nvcc 13.0 ends with an internal error where C++ destroys one that has none. */
#ifndef NDS_CORE_CUDA_INTERFACE_H
#define NDS_CORE_CUDA_INTERFACE_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NDS_CUDA_INTERFACE_VERSION 5

/* A function that can fail returns 0 on success, else 1 with this filled in. Texts are zero-terminated. */
typedef struct NdsCudaError {
  char code[32];
  char message[2016];
} NdsCudaError;

typedef struct NdsCudaDevice {
  char name[128];
  char pci_bus_id[32];
  int32_t major, minor; /* compute capability */
  int32_t num_multiprocessors;
  int32_t reserved;
  int64_t total_bytes, free_bytes; /* of memory; free_bytes is -1 unless requested */
} NdsCudaDevice;

/* A library that the backend opens at run time. */
typedef struct NdsCudaLibrary {
  char name[32];
  char path[512]; /* empty if not found */
  char version[32];
  char reason[512]; /* why not found */
} NdsCudaLibrary;

typedef struct NdsCudaInfo {
  int32_t is_emulated;
  int32_t driver_version, runtime_version; /* in CUDA's encoding: 13000 is 13.0 */
  int32_t num_devices;
  NdsCudaDevice devices[64];
  int32_t num_libraries;
  int32_t reserved;
  NdsCudaLibrary libraries[4];
} NdsCudaInfo;

/* Bytes for, or from, the leader of another host. */
typedef struct NdsLeaderPart {
  void* data; /* read only, in what is sent */
  int64_t bytes;
  int32_t node;
  int32_t reserved;
} NdsLeaderPart;

/* HostExchange of comm/leaders.h. */
typedef struct NdsLeaderExchange {
  uint32_t sequence, kind, layout, index;
  uint64_t bytes;
  int64_t step;
  const NdsLeaderPart* sends;
  const NdsLeaderPart* receives;
  int64_t num_sends, num_receives;
  int32_t num_nodes;
  int32_t reserved;
} NdsLeaderExchange;

/* Leaders and LeaderSession of comm/leaders.h. They live in nds.node, since their connections outlive a backend. */
typedef struct NdsLeaders {
  void* leaders;
  int32_t node_rank, num_nodes;
  int (*open_session)(void* leaders, int32_t ranks_per_node, int64_t step_timeout_ms, int64_t startup_timeout_ms,
                      void** session, NdsCudaError* error);
  void (*close_session)(void* session);
  int (*exchange)(void* session, const NdsLeaderExchange* exchange, NdsCudaError* error);
  void (*fail)(void* session, const char* code, const char* message);
  void (*abort)(void* session); /* from any thread */
  double (*take_wait_seconds)(void* session);
} NdsLeaders;

typedef struct NdsCudaOptions {
  int32_t rank, world_size, local_rank, local_world_size;
  int32_t device; /* modulo the number of devices */
  int32_t shm_fd;
  int32_t deterministic;
  int32_t trace;
  int64_t startup_timeout_ms, step_timeout_ms;
  /* Called with `context` and the bytes of each portion of weights that a load has uploaded. Null = not wanted. */
  void (*on_loaded)(void* context, int64_t num_bytes);
  void* context;
  void* state; /* StateBlock of core/progress.h, valid as long as the backend; null = none */
  int32_t num_nodes;
  int32_t reserved;
  const NdsLeaders* leaders; /* on local rank 0 of several hosts, valid as long as the backend; else null */
} NdsCudaOptions;

typedef struct NdsCudaReport {
  int64_t weight_bytes, kv_bytes, scratch_bytes;
} NdsCudaReport;

typedef struct NdsCudaArray {
  const void* data;
  int64_t count; /* elements */
} NdsCudaArray;

/* StepResult of core/plan/step_result.h, valid until the next collect or destroy. */
typedef struct NdsCudaResult {
  NdsCudaArray num_tokens, token_ids, logits, logprob_ids, logprobs, logprob_ranks, trace;
  double stats[7]; /* execute, wait, exchanged bytes, all-reduce bytes, start, end, draft */
  uint64_t plan_hash, output_hash;
} NdsCudaResult;

typedef struct NdsCudaBackend NdsCudaBackend;

typedef struct NdsCudaInterface {
  uint32_t version;     /* NDS_CUDA_INTERFACE_VERSION */
  uint32_t struct_size; /* of this struct */
  /* device: index, modulo the number of devices, of the one whose free memory to report; a context is made on it.
     -1 = none. */
  int (*info)(int32_t device, NdsCudaInfo* info, NdsCudaError* error);
  int (*create)(const NdsCudaOptions* options, NdsCudaBackend** backend, NdsCudaError* error);
  void (*destroy)(NdsCudaBackend* backend);
  /* spec: LoadSpec bytes of core/program/load_spec_bytes.h. */
  int (*load)(NdsCudaBackend* backend, const uint8_t* spec, int64_t num_bytes, NdsCudaReport* report,
              NdsCudaError* error);
  int32_t (*max_in_flight)(NdsCudaBackend* backend);
  /* The plan is in the form that view_plan of core/plan/plan_view.h takes; its bytes may be freed once this returns. */
  int (*launch)(NdsCudaBackend* backend, int64_t step, const int32_t* directory, int64_t directory_size,
                const uint8_t* bytes, int64_t num_bytes, NdsCudaError* error);
  int32_t (*is_done)(NdsCudaBackend* backend);
  int (*collect)(NdsCudaBackend* backend, NdsCudaResult* result, NdsCudaError* error);
  void (*abort)(NdsCudaBackend* backend); /* from any thread */
} NdsCudaInterface;

/* The one symbol of nds_cuda.so. */
const NdsCudaInterface* nds_cuda_interface(void);
typedef const NdsCudaInterface* (*NdsCudaInterfaceFunction)(void);

#ifdef __cplusplus
}
#endif
#endif

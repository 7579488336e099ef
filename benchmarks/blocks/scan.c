// The selective scan and the causal convolution of one sequence, forward and with their gradients.
//
//     h_t[n,c] = exp(dt_t[c] * a[n,c]) * h_{t-1}[n,c] + dt_t[c] * x_t[c] * b_t[n]
//     y_t[c]   = sum over n of out_t[n] * h_t[n,c]
//
// Arrays are row-major: dt, x, y [steps, channels], b and out [steps, states],
// a [states, channels]. Channels are the inner index, so that one state a channel vectorizes, too.

#include <math.h>
#include <stddef.h>
#include <string.h>

#define EACH for (size_t c = 0; c < channels; c++)

// States and decays of every step go to `h` and `decay`, [steps, states, channels] each.
static void states_of(size_t steps, size_t channels, size_t states, const float *restrict dt,
                      const float *restrict x, const float *restrict b, const float *restrict a,
                      float *restrict h, float *restrict decay) {
    size_t all = states * channels;
    for (size_t t = 0; t < steps; t++) {
        const float *dt_t = dt + t * channels, *x_t = x + t * channels;
        for (size_t n = 0; n < states; n++) {
            const float *a_n = a + n * channels;
            float *now = h + t * all + n * channels, *keep = decay + t * all + n * channels;
            float b_n = b[t * states + n];
            EACH keep[c] = expf(dt_t[c] * a_n[c]);
            if (t == 0) {
                EACH now[c] = dt_t[c] * x_t[c] * b_n;
            } else {
                const float *before = now - all;
                EACH now[c] = keep[c] * before[c] + dt_t[c] * x_t[c] * b_n;
            }
        }
    }
}

// `scratch` holds 2 * steps * states * channels floats.
void scan_forward(size_t steps, size_t channels, size_t states, const float *dt, const float *x,
                  const float *b, const float *out, const float *a, float *restrict y,
                  float *scratch) {
    size_t all = states * channels;
    states_of(steps, channels, states, dt, x, b, a, scratch, scratch + steps * all);
    memset(y, 0, steps * channels * sizeof(float));
    for (size_t t = 0; t < steps; t++) {
        float *restrict y_t = y + t * channels;
        for (size_t n = 0; n < states; n++) {
            const float *restrict h = scratch + t * all + n * channels;
            float out_n = out[t * states + n];
            EACH y_t[c] += out_n * h[c];
        }
    }
}

// Computes the states again, then goes back through the steps. `d_a` is added to, the other
// gradients are written. `scratch` holds (2 * steps + 1) * states * channels floats.
void scan_backward(size_t steps, size_t channels, size_t states, const float *dt, const float *x,
                   const float *b, const float *out, const float *a, const float *dy, float *d_dt,
                   float *d_x, float *d_b, float *d_out, float *restrict d_a, float *scratch) {
    size_t all = states * channels;
    const float *h = scratch, *decay = scratch + steps * all;
    float *restrict d_h = scratch + 2 * steps * all;
    states_of(steps, channels, states, dt, x, b, a, scratch, scratch + steps * all);
    memset(d_h, 0, all * sizeof(float));
    memset(d_dt, 0, steps * channels * sizeof(float));
    memset(d_x, 0, steps * channels * sizeof(float));
    for (size_t t = steps; t-- > 0;) {
        const float *restrict dt_t = dt + t * channels, *restrict x_t = x + t * channels;
        const float *restrict dy_t = dy + t * channels;
        float *restrict d_dt_t = d_dt + t * channels, *restrict d_x_t = d_x + t * channels;
        for (size_t n = 0; n < states; n++) {
            const float *restrict a_n = a + n * channels;
            const float *restrict now = h + t * all + n * channels;
            const float *restrict keep = decay + t * all + n * channels;
            float *restrict d_n = d_h + n * channels, *restrict d_a_n = d_a + n * channels;
            float b_n = b[t * states + n], out_n = out[t * states + n];
            float sum_b = 0, sum_out = 0;
            EACH {
                sum_out += dy_t[c] * now[c];
                d_n[c] += out_n * dy_t[c];
                sum_b += d_n[c] * dt_t[c] * x_t[c];
                d_x_t[c] += d_n[c] * dt_t[c] * b_n;
                d_dt_t[c] += d_n[c] * x_t[c] * b_n;
            }
            d_b[t * states + n] = sum_b;
            d_out[t * states + n] = sum_out;
            if (t > 0) {
                const float *restrict before = now - all;
                EACH {
                    float kept = d_n[c] * keep[c];
                    d_dt_t[c] += kept * before[c] * a_n[c];
                    d_a_n[c] += kept * before[c] * dt_t[c];
                    d_n[c] = kept;
                }
            }
        }
    }
}

// y_t[c] = bias[c] + sum over j of taps[j,c] * x_{t-width+1+j}[c], with x before the start zero;
// x and y are [steps, channels], taps [width, channels].
void convolve_forward(size_t steps, size_t channels, size_t width, const float *restrict x,
                      const float *restrict taps, const float *restrict bias, float *restrict y) {
    for (size_t t = 0; t < steps; t++) {
        float *restrict y_t = y + t * channels;
        memcpy(y_t, bias, channels * sizeof(float));
        for (size_t age = 0; age < width && age <= t; age++) {
            const float *restrict tap = taps + (width - 1 - age) * channels;
            const float *restrict x_t = x + (t - age) * channels;
            EACH y_t[c] += tap[c] * x_t[c];
        }
    }
}

// Adds to the gradients of taps and bias, writes that of x.
void convolve_backward(size_t steps, size_t channels, size_t width, const float *restrict x,
                       const float *restrict taps, const float *restrict dy, float *restrict d_x,
                       float *restrict d_taps, float *restrict d_bias) {
    memset(d_x, 0, steps * channels * sizeof(float));
    for (size_t t = 0; t < steps; t++) {
        const float *restrict dy_t = dy + t * channels;
        EACH d_bias[c] += dy_t[c];
        for (size_t age = 0; age < width && age <= t; age++) {
            const float *restrict tap = taps + (width - 1 - age) * channels;
            const float *restrict x_t = x + (t - age) * channels;
            float *restrict d_tap = d_taps + (width - 1 - age) * channels;
            float *restrict d_x_t = d_x + (t - age) * channels;
            EACH {
                d_tap[c] += dy_t[c] * x_t[c];
                d_x_t[c] += dy_t[c] * tap[c];
            }
        }
    }
}
